"""Write the files of a folder: models with tiny random weights, and the JSON files of sentence-transformers."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, PretrainedConfig

from tests.model_matrix.layouts.vocabularies import Written
from tests.model_matrix.shrink import shrunk
from tests.model_matrix.weights import enliven

# A writer of tokenizer files.
Words = Callable[[Path], Written]
# What stays as it is published: limits of the input, not sizes of the model.
_LIMITS = ("max_position_embeddings", "n_positions", "type_vocab_size", "image_size", "relative_attention_num_buckets")
OLD = "sentence_transformers.models."


def write(path: Path, content: Any) -> None:
    """Write a file: text as it is, everything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of a layout.

    Attributes:
        architecture: the class, as `architectures` in config.json has it.
        type: `model_type`.
        config: keys of config.json that the class reads, as published. Sizes of the model are made small.
        keys: keys that config.json also has on the hub, or has in another form: they replace what is saved.
        copies: keys that config.json has too on the hub, and the key whose value is theirs.
        kept: names of sizes that stay as published, beside the limits of the input.
        without: keys that are saved today and were not when the model was published.
        half: weights in half precision.
        cls: the class to build, if `architecture` is not one of transformers.
    """

    architecture: str
    type: str
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keys: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    copies: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kept: Sequence[str] = ()
    without: Sequence[str] = ()
    half: bool = False
    cls: str = ""

    def write(self, folder: Path, words: Written | None = None) -> None:
        """Write config.json and the weights."""
        config = self._small()
        if words is not None:
            for part in (config, getattr(config, "text_config", None)):
                if part is not None and hasattr(part, "vocab_size"):
                    part.vocab_size = words.size
                    _renumber(part, {name: number for name, number in words.ids.items() if name not in self.kept})
        torch.manual_seed(0)
        model = getattr(transformers, self.cls or self.architecture)(config).float().eval()
        enliven(model)
        if self.half:
            model = model.half()
        model.save_pretrained(folder)
        self._publish(folder / "config.json")
        (folder / "generation_config.json").unlink(missing_ok=True)

    def _small(self) -> PretrainedConfig:
        published = AutoConfig.for_model(self.type, **self.config)
        config = shrunk(published)
        _keep(published, config, _LIMITS)
        _keep(published, config, self.kept)
        if published.id2label is not None:
            # Shrinking takes them for bookkeeping.
            config.id2label, config.label2id = published.id2label, published.label2id
            config.problem_type = published.problem_type
        if 0 < (getattr(config, "initializer_range", None) or 0) < 0.05:
            config.initializer_range = 0.06
        return config

    def _publish(self, path: Path) -> None:
        """Give config.json the form that it has on the hub."""
        saved = json.loads(path.read_text(encoding="utf-8"))
        if "dtype" in saved:
            saved["torch_dtype"] = saved.pop("dtype")
        kept = {name: value for name, value in saved.items() if name not in self.without}
        copies = {name: saved[key] for name, key in self.copies.items()}
        write(path, dict(sorted((kept | {"architectures": [self.architecture]} | copies | dict(self.keys)).items())))


def _keep(published: PretrainedConfig, config: PretrainedConfig, names: Sequence[str]) -> None:
    """Give a small configuration, and its parts, these values of the published one."""
    for name in names:
        if hasattr(published, name) and hasattr(config, name):
            setattr(config, name, getattr(published, name))
    for name, part in vars(config).items():
        if isinstance(part, PretrainedConfig) and isinstance(getattr(published, name, None), PretrainedConfig):
            _keep(getattr(published, name), part, names)


def _renumber(config: PretrainedConfig, ids: Mapping[str, int]) -> None:
    """Give special tokens that the configuration names the ids of the small vocabulary."""
    for name, number in ids.items():
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, number)


@dataclasses.dataclass(frozen=True)
class TextFolder:
    """A folder with a model of text.

    Attributes:
        model: the model.
        words: writes the tokenizer's files.
        files: further files by name, text or JSON.
        at: the sub-folder that model and tokenizer are in.
    """

    model: Model
    words: Words
    files: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    at: str = ""

    def __call__(self, folder: Path) -> None:
        """Write it."""
        inner = folder / self.at
        inner.mkdir(parents=True, exist_ok=True)
        self.model.write(inner, self.words(inner))
        for name, content in self.files.items():
            write(folder / name, content)


@dataclasses.dataclass(frozen=True)
class MediaFolder:
    """A folder with a model of images or sounds and its processor's files; of `words`, if it has a tokenizer."""

    model: Model
    files: Mapping[str, Any]
    words: Words | None = None

    def __call__(self, folder: Path) -> None:
        """Write it."""
        self.model.write(folder, None if self.words is None else self.words(folder))
        for name, content in self.files.items():
            write(folder / name, content)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A module behind the transformer: its kind, its config.json, and for a linear layer its sizes."""

    kind: str
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    path: str | None = None


_MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def pooling(mode: str, size: int = 64, modes: int = 6, **more: Any) -> Stage:
    """Pooling by the mode; `modes`: how many of the modes the release of the library knew, 4 in old ones."""
    chosen = {f"pooling_mode_{name}": name == mode for name in _MODES[:modes]}
    return Stage("Pooling", {"word_embedding_dimension": size} | chosen | more)


def dense(out: int, bias: bool, activation: str, into: int = 64, **more: Any) -> Stage:
    """A linear layer."""
    settings = {"in_features": into, "out_features": out, "bias": bias, "activation_function": activation}
    return Stage("Dense", settings | more)


NORMALIZE = Stage("Normalize")
IDENTITY = "torch.nn.modules.linear.Identity"
TANH = "torch.nn.modules.activation.Tanh"
SIGMOID = "torch.nn.modules.activation.Sigmoid"


def _version(release: str) -> dict[str, Any]:
    return {"__version__": {"sentence_transformers": release, "transformers": "4.41.2", "pytorch": "2.3.1+cu121"}}


VERSION_2 = _version("2.0.0")


@dataclasses.dataclass(frozen=True)
class Sentence:
    """What a sentence-transformers folder has beside the model.

    Attributes:
        stages: the modules behind the transformer.
        length: `max_seq_length`; None: no file of the transformer's settings.
        lower: `do_lower_case`.
        settings: config_sentence_transformers.json; None: there is none.
        at: the sub-folder of the transformer.
        prefix: of the modules' types.
        first: the kind of the first module.
        named: the name of the file of the transformer's settings.
    """

    stages: Sequence[Stage]
    length: int | None = 512
    lower: bool = False
    settings: Mapping[str, Any] | None = dataclasses.field(default_factory=lambda: VERSION_2)
    at: str = ""
    prefix: str = OLD
    first: str = "Transformer"
    named: str = "sentence_bert_config.json"

    def write(self, folder: Path) -> None:
        """Write modules.json, the settings and the modules' folders."""
        listed = [{"idx": 0, "name": "0", "path": self.at, "type": self.prefix + self.first}]
        for number, stage in enumerate(self.stages, 1):
            path = stage.path or f"{number}_{stage.kind}"
            kind = stage.kind if "." in stage.kind else self.prefix + stage.kind
            listed.append({"idx": number, "name": str(number), "path": path, "type": kind})
            (folder / path).mkdir(exist_ok=True)
            if stage.config:
                write(folder / path / "config.json", dict(stage.config))
            if stage.kind.endswith("Dense"):
                _linear(folder / path, stage.config, number)
        write(folder / "modules.json", listed)
        if self.length is not None:
            write(folder / self.at / self.named, {"max_seq_length": self.length, "do_lower_case": self.lower})
        if self.settings is not None:
            write(folder / "config_sentence_transformers.json", dict(self.settings))


def _linear(folder: Path, config: Mapping[str, Any], seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    into, out = config["in_features"], config["out_features"]
    tensors = {"linear.weight": torch.randn(out, into, generator=chance) * (1.2 / math.sqrt(into))}
    if config["bias"]:
        tensors["linear.bias"] = torch.randn(out, generator=chance) * 0.2
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})


def version_3(
    prompts: Mapping[str, str] | None = None, default: str | None = None, similarity: str | None = "cosine", **more: Any
) -> dict[str, Any]:
    """config_sentence_transformers.json from release 3 on, with prompts by name."""
    named = {"prompts": dict(prompts or {}), "default_prompt_name": default, "similarity_fn_name": similarity}
    return _version("3.0.1") | named | more


@dataclasses.dataclass(frozen=True)
class SentenceFolder:
    """A folder of sentence-transformers."""

    model: Model
    words: Words
    sentence: Sentence
    files: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, folder: Path) -> None:
        """Write it."""
        TextFolder(self.model, self.words, self.files, self.sentence.at)(folder)
        self.sentence.write(folder)
