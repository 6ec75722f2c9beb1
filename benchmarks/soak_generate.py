"""Check that no text of a pool for generation is lost or wrong, and that memory does not grow.

Threads send requests of mixed lengths and settings; a tenth of them is cancelled, waiting or half written, and some
have a deadline that passes. Each text is compared with the one that its request has alone. The exit code is 1 if one is
lost or wrong, or if memory grows by more than 32 MB after the first tenth. Without a file, a tiny random Llama is
exported.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError
from pathlib import Path
from random import Random
from typing import Any

import runtime
from benchmarks.harness import machine
from runtime.errors import DeadlineError
from runtime.serving.generation_pool import GenerationPool
from runtime.session import Session
from runtime.text import Generated

ALLOWED_GROWTH_MB = 32
# Requests that differ; more of them repeat these beside other neighbours.
DISTINCT = 1000
# Threads that wait for a text each; rows that are written at the same time; tokens of their caches.
CLIENTS, ROWS, CACHE_TOKENS = 48, 16, 2560
SYSTEM = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software"
WORDS = ("the", "Software", "without", "restriction", "including", "rights", "to", "use", "copy", "東京", "🙂", "merge")
WAIT_S = 120


def request(number: int) -> tuple[str, dict[str, Any]]:
    """Prompt and options: one in three begins with the same words, one in three is drawn, lengths are 1 to 40."""
    random = Random(number)
    text = " ".join(random.choices(WORDS, k=random.choice((1, 4, 10, 30))))
    prompt = f"{SYSTEM} {text}" if number % 3 == 0 else text
    options: dict[str, Any] = {"max_new_tokens": random.choice((1, 3, 8, 16, 40)), "seed": number}
    options["temperature"] = random.choice((0, 0, 1.1))
    options["repetition_penalty"] = random.choice((1, 1.2))
    options["stop"] = random.choice(((), (), "e"))
    return prompt, options


class Clients:
    """What the threads have got."""

    def __init__(self, pool: GenerationPool, expected: list[Generated], count: int) -> None:
        self._pool, self._expected = pool, expected
        self._numbers = iter(range(count))
        self._lock = threading.Lock()
        self.found: Counter[str] = Counter()
        self.examples: list[str] = []

    def work(self) -> None:
        """Send requests one after the other until there are no more."""
        while True:
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            kind = self._ask(number)
            with self._lock:
                self.found[kind] += 1

    def _ask(self, number: int) -> str:
        which = number % len(self._expected)
        prompt, options = request(which)
        random = Random(f"kind {number}")
        deadline = 0.001 if random.random() < 0.01 else None
        handle = self._pool.submit(prompt, deadline_s=deadline, **options)
        try:
            if random.random() < 0.1:
                # At once, or when some pieces have been read.
                list(itertools.islice(handle, random.choice((0, 0, 1, 2))))
                if handle.cancel():
                    return "cancelled"
            text = handle.result(WAIT_S)
        except DeadlineError:
            return "late"
        except (TimeoutError, CancelledError):
            return "lost"
        if text == self._expected[which]:
            return "right"
        with self._lock:
            self.examples.append(f"request {number}: {text.ids}, alone {self._expected[which].ids}")
        return "wrong"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("artifact", nargs="?")
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        session = runtime.load(options.artifact or tiny_artifact(Path(folder)))
    begun = time.monotonic()
    expected = [alone(session, number) for number in range(min(DISTINCT, options.requests))]
    print(f"{len(expected)} texts alone in {time.monotonic() - begun:.0f} s", flush=True)
    samples: list[float] = []
    with GenerationPool(session, rows=ROWS, cache_tokens=CACHE_TOKENS, max_tokens=64) as pool:
        clients = Clients(pool, expected, options.requests)
        begun = time.monotonic()
        threads = [threading.Thread(target=clients.work) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            done = sum(clients.found.values())
            if done >= len(samples) * options.requests // 20:
                samples.append(machine.resident_bytes() / 2**20)
                print(f"{done:>6} requests: {samples[-1]:8.1f} MB", flush=True)
            time.sleep(0.05)
        seconds = time.monotonic() - begun
        seen = pool.statistics()
    found = clients.found
    # The first tenth is warm-up.
    settled = samples[len(samples) // 10 + 1 :] + [machine.resident_bytes() / 2**20]
    growth = settled[-1] - settled[0]
    print(f"{sum(found.values())} requests of {CLIENTS} threads in {seconds:.0f} s, {ROWS} rows:")
    print(f"{found['right']} right, {found['cancelled']} cancelled, {found['late']} past their deadline")
    print(f"{found['lost']} lost, {found['wrong']} wrong")
    print(
        f"{seen.new_tokens} tokens written, {seen.prompt_tokens} of prompts read and {seen.reused_tokens} taken over, "
        f"in {seen.calls} calls that were full to {seen.fill:.0%}"
    )
    print(f"memory after warm-up: {settled[0]:.1f} MB, at the end {settled[-1]:.1f} MB, growth {growth:+.1f} MB")
    for example in clients.examples[:5]:
        print(example)
    good = sum(found[kind] for kind in ("right", "cancelled", "late")) == options.requests
    if not good or growth > ALLOWED_GROWTH_MB:
        sys.exit("FAILED")


def alone(session: Session, number: int) -> Generated:
    """The text of a request that shares nothing with others."""
    prompt, options = request(number)
    found: Generated = session.text.generate(prompt, **options)
    return found


def tiny_artifact(folder: Path) -> Path:
    """An exported Llama of 2 layers with random weights, and a tokenizer of bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from exporter import ExportRequest, export

    torch.manual_seed(3)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<end>", *alphabet])}
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(
        **sizes,
        intermediate_size=128,
        vocab_size=len(vocabulary),
        max_position_embeddings=512,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", model_max_length=512
    ).save_pretrained(folder)
    return Path(export(ExportRequest(model=str(folder), output=folder / "model.pt", tune="off")).output)


if __name__ == "__main__":
    main()
