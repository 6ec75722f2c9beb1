"""What does text cost beside the model: tokenising and making results, as a share of the time of a call?

Needs an artifact (bf16 MiniLM, as `make demo` exports it) and writes docs/benchmarks/text.json and .md. The whole of
`session.text.embed` is timed, and within it the session's call; the difference is the cost of text. The texts have 20
to 60 tokens, or 128. The figures are medians over calls; a call and the text work around it are timed together, so that
noise of the machine affects both.

Usage: python -m benchmarks.text FILE [--calls N]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch

import runtime
from benchmarks.harness import machine, places, reports, tables
from runtime import Session
from runtime.text import Text

THREADS = 2
TARGET = 0.15
SENTENCES = [
    "The ferry to the island leaves at seven in the morning and comes back at noon, except in winter.",
    "Please reset the password of my account; the link in your last message has expired since yesterday.",
    "Interest rates rose by half a percentage point, more than most analysts had expected, and shares fell.",
    "How do I return a pair of shoes that I bought online but that turned out to be one size too small?",
    "The committee will meet again on Thursday to discuss the budget, the new library, and the leaking roof.",
    "A bakery on the corner sells bread from six, and there is usually a queue before it has even opened its door.",
    "Researchers measured the temperature of the lake every hour for three years and found that it had risen.",
    "Our train was cancelled, the next one was full, and we arrived so late that the museum had already closed.",
]


class Timed:
    """A session that notes how long its calls take."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.manifest = session.manifest
        self.seconds = 0.0

    def __call__(self, **inputs: Any) -> dict[str, torch.Tensor]:
        """The session's answer."""
        begun = time.perf_counter()
        outputs = self._session(**inputs)
        self.seconds += time.perf_counter() - begun
        return outputs


def measured(session: Session, texts: list[str], calls: int) -> dict[str, Any]:
    """Milliseconds of a call and of the text around it."""
    timed = Timed(session)
    text = Text(timed, session.manifest, session._encoder)
    rows = []
    for number in range(calls + 20):
        timed.seconds = 0.0
        begun = time.perf_counter()
        text.embed(texts)
        total = time.perf_counter() - begun
        if number >= 20:
            rows.append((1000 * timed.seconds, 1000 * (total - timed.seconds)))
    call, around = (statistics.median(column) for column in zip(*rows, strict=True))
    return {"texts": len(texts), "call_ms": call, "text_ms": around, "share": around / call}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("artifact")
    parser.add_argument("--calls", type=int, default=300)
    options = parser.parse_args()
    session = runtime.load(options.artifact, threads=THREADS)
    # One or two sentences each.
    texts = [" ".join(SENTENCES[first : first + 1 + first % 2]) for first in range(len(SENTENCES) - 1)] + SENTENCES[-1:]
    lengths = [int(session.text.encode([text])["input_ids"].shape[1]) for text in texts]
    assert 20 <= min(lengths) <= max(lengths) <= 60, lengths
    # Of exactly 128 tokens, the two special ones included: the sentences' words are tokens of their own.
    long = []
    for first in range(len(SENTENCES)):
        words = " ".join(SENTENCES[first:] + SENTENCES).split() * 2
        count = 1
        while session.text.encode([" ".join(words[: count + 1])])["input_ids"].shape[1] <= 128:
            count += 1
        long.append(" ".join(words[:count]))
    # The answers first: what is timed is what `encode` and the session give.
    plain = session(**session.text.encode(texts))["sentence_embedding"]
    together = torch.stack(session.text.embed(texts))
    if torch.nn.functional.cosine_similarity(plain, together).min() < 0.999:
        raise SystemExit("embed gives other vectors than encode and a call; nothing was timed")
    cases = {
        f"1 text of {lengths[0]} tokens": texts[:1],
        f"8 texts of {min(lengths)} to {max(lengths)} tokens": texts,
        "1 text of 128 tokens": long[:1],
        "8 texts of 128 tokens": long,
    }
    result = {
        "question": "milliseconds of session.text.embed outside of the session's call, as a share of that call",
        "machine": machine.description(),
        "artifact": f"{session.manifest.model.id}, {session.manifest.precision}, {session.manifest.backend}",
        "versions": machine.versions(("torch", "tokenizers")),
        "threads": THREADS,
        "calls": options.calls,
        "target": TARGET,
        "cases": {name: measured(session, texts, options.calls) for name, texts in cases.items()},
    }
    reports.save_raw(places.OUTPUT, "text", result)
    report(result)


def report(result: Mapping[str, Any]) -> None:
    """Write the page."""
    body = [
        [name, f"{case['call_ms']:.2f}", f"{case['text_ms']:.3f}", f"{case['share']:.1%}", _verdict(case, result)]
        for name, case in result["cases"].items()
    ]
    head = ["texts", "call, ms", "text, ms", "share", f"target {result['target']:.0%}"]
    print(tables.plain(head, body, head[-1:]))
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        "# What text costs beside a call",
        "",
        f"`make bench-text`: {result['question']}.",
        f"Artifact: {result['artifact']}; {result['threads']} threads; medians of {result['calls']} calls.",
        f"Machine: {result['machine']}; {versions}.",
        "",
        *tables.table(head, body, head[-1:]),
    ]
    reports.save_page(places.OUTPUT, "text", "\n".join(lines) + "\n")


def _verdict(case: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    return "reached" if case["share"] <= result["target"] else "missed"


if __name__ == "__main__":
    main()
