"""Named tensors in, named tensors out; inputs that do not fit are refused with a named error."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtime import Session, load
from runtime.errors import (
    ArtifactFailedError,
    InputError,
    InputNameError,
    InputRankError,
    InputSizeError,
    InputTextError,
    InputTypeError,
    InputValueError,
    ThreadCountError,
)
from runtime.format.manifest import Axis
from tests.conftest import run_python

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def test_outputs_by_name_in_the_manifests_order(exported: Callable[..., Any], tiny_folder: Callable[..., Path]) -> None:
    report = exported(tiny_folder("bert", "question-answering"), backend="plain")
    answers = load(report.output)(input_ids=IDS)
    assert list(answers) == ["start_logits", "end_logits"]
    assert all(tensor.dtype == torch.float32 and tensor.shape == IDS.shape for tensor in answers.values())


def test_torch_and_numpy_give_the_same(tiny_session: Session) -> None:
    one = tiny_session(input_ids=IDS, attention_mask=MASK)["logits"]
    two = tiny_session(attention_mask=MASK.numpy(), input_ids=IDS.numpy().astype(np.int32))["logits"]
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    "odd",
    [
        IDS.repeat(1, 2)[:, ::2].contiguous().t().contiguous().t(),  # not contiguous
        np.asfortranarray(IDS.numpy()),
        IDS.numpy().astype(">i8"),  # the other byte order
        IDS.to(torch.uint8),
        IDS.numpy()[:, ::-1],
    ],
)
def test_arrays_of_any_layout(tiny_session: Session, odd: Any) -> None:
    expected = (
        torch.as_tensor(np.ascontiguousarray(odd).astype(np.int64)) if isinstance(odd, np.ndarray) else odd.long()
    )
    assert torch.equal(tiny_session(input_ids=odd)["logits"], tiny_session(input_ids=expected)["logits"])


def test_a_read_only_array(tiny_session: Session) -> None:
    array = IDS.numpy().copy()
    array.flags.writeable = False
    assert torch.equal(tiny_session(input_ids=array)["logits"], tiny_session(input_ids=IDS)["logits"])


def test_left_out_inputs_are_filled(tiny_session: Session) -> None:
    whole = tiny_session(input_ids=IDS, attention_mask=torch.ones_like(IDS), token_type_ids=torch.zeros_like(IDS))
    assert torch.equal(tiny_session(input_ids=IDS)["logits"], whole["logits"])
    assert not torch.equal(tiny_session(input_ids=IDS, attention_mask=MASK)["logits"], whole["logits"])


def test_the_callers_tensors_stay_as_they_are(tiny_session: Session) -> None:
    ids, mask = IDS.clone(), MASK.clone()
    tiny_session(input_ids=ids, attention_mask=mask)
    assert torch.equal(ids, IDS) and torch.equal(mask, MASK)


@pytest.mark.parametrize(
    ("inputs", "kind", "message"),
    [
        (
            {"ids": IDS},
            InputNameError,
            "unknown input 'ids'; expected some of input_ids, attention_mask, token_type_ids",
        ),
        ({}, InputNameError, "'input_ids' is missing"),
        ({"input_ids": None}, InputNameError, "'input_ids' is missing"),
        ({"input_ids": IDS, "labels": IDS}, InputNameError, "'labels'"),
        ({"input_ids": [[1, 2]]}, InputTypeError, "is a list"),
        ({"input_ids": "text"}, InputTypeError, "is a str"),
        ({"input_ids": IDS.float()}, InputTypeError, "torch.float32"),
        ({"input_ids": np.array([["a"]])}, InputTypeError, "cannot take"),
        ({"input_ids": np.array([[1.5]])}, InputTypeError, "torch.float64"),
        ({"input_ids": IDS.to_sparse()}, InputTypeError, "sparse"),
        ({"input_ids": IDS.to("meta")}, InputTypeError, "meta"),
        ({"input_ids": IDS[0]}, InputRankError, r"shape \[4\]"),
        ({"input_ids": IDS[None]}, InputRankError, r"shape \[1, 2, 4\]"),
        ({"input_ids": IDS[:0]}, InputSizeError, "0 along its batch axis; expected at least 1"),
        ({"input_ids": IDS[:, :0]}, InputSizeError, "0 along its sequence axis"),
        (
            {"input_ids": torch.ones(1, 513, dtype=torch.long)},
            InputSizeError,
            "513 along its sequence axis; expected 1 to 512",
        ),
        ({"input_ids": IDS, "attention_mask": MASK[:1]}, InputSizeError, "expected 2, as in input 'input_ids'"),
        ({"input_ids": IDS, "attention_mask": MASK[:, :3]}, InputSizeError, "expected 4"),
        ({"input_ids": IDS + 299}, InputValueError, "holds 311; expected integers from 0 to 299"),
        ({"input_ids": IDS - 6}, InputValueError, "holds -1"),
        ({"input_ids": IDS, "attention_mask": MASK * 2}, InputValueError, "'attention_mask' holds 2"),
        ({"input_ids": IDS, "token_type_ids": MASK * 2}, InputValueError, "'token_type_ids' holds 2"),
    ],
)
def test_what_does_not_fit(tiny_session: Session, inputs: dict[str, Any], kind: type[InputError], message: str) -> None:
    with pytest.raises(kind, match=message):
        tiny_session(**inputs)
    assert issubclass(kind, InputError)


def test_many_threads_get_the_answers_of_one(minilm_ipex: Path) -> None:
    session = load(minilm_ipex)
    batches = [
        torch.randint(1000, 20000, (1 + i % 3, 4 + 3 * i), generator=torch.Generator().manual_seed(i)) for i in range(8)
    ]
    alone = [session(input_ids=ids)["sentence_embedding"] for ids in batches]
    wrong: list[int] = []

    def work(start: int) -> None:
        for step in range(40):
            index = (start + step) % len(batches)
            answer = session(input_ids=batches[index])["sentence_embedding"]
            # bf16 sums depend on how work is shared out; a wrong answer is off by a thousand times more.
            if not torch.allclose(answer, alone[index], atol=2e-3):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.trap("6: the thread count changes after the weights were packed", "refuses")
def test_threads_are_set_before_the_weights_are_packed(minilm_ipex: Path) -> None:
    code = """
import runtime, sys, torch
session = runtime.load(sys.argv[1], threads=1)
print(torch.get_num_threads())
session(input_ids=torch.ones(1, 4, dtype=torch.long))
torch.set_num_threads(2)
try:
    session(input_ids=torch.ones(1, 4, dtype=torch.long))
except runtime.RequirementError as error:
    print(type(error).__name__, error)
"""
    done = run_python(code, minilm_ipex)
    assert done.stdout.startswith("1\nThreadCountError torch uses 2 threads now; expected 1"), done.stderr


def test_a_plain_artifact_does_not_mind_another_thread_count(tiny_session: Session) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        tiny_session(input_ids=IDS)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [0, -1, 99999, "2", 1.5])
def test_a_thread_count_that_makes_no_sense(tiny_artifact: Path, threads: Any) -> None:
    """Thousands of threads hang the OpenMP runtime."""
    with pytest.raises(ThreadCountError, match="threads is"):
        load(tiny_artifact, threads=threads)


def test_the_answers_can_be_changed_in_place(tiny_session: Session) -> None:
    tiny_session(input_ids=IDS)["logits"].add_(1).requires_grad_()


def test_a_model_that_fails_is_a_named_error(tiny_session: Session) -> None:
    """A manifest that admits more than the model, as only a damaged or forged file has."""
    manifest = tiny_session.manifest
    wider = tuple(dataclasses.replace(spec, axes=(spec.axes[0], Axis("sequence", 1, 9999))) for spec in manifest.inputs)
    session = Session(tiny_session._module, dataclasses.replace(manifest, inputs=wider))
    with pytest.raises(ArtifactFailedError, match=r"failed on input_ids \[1, 600\]"):
        session(input_ids=torch.ones(1, 600, dtype=torch.long))
    doubled = Session(tiny_session._module, dataclasses.replace(manifest, outputs=manifest.outputs * 2))
    with pytest.raises(ArtifactFailedError):
        doubled(input_ids=IDS)


def test_without_warm_up_the_answers_are_the_same(minilm_ipex: Path) -> None:
    warm, cold = load(minilm_ipex), load(minilm_ipex, warmup=False)
    ids = torch.arange(2000, 2007)[None]
    expected = warm(input_ids=ids)["sentence_embedding"]
    for _ in range(3):
        assert torch.allclose(cold(input_ids=ids)["sentence_embedding"], expected, atol=2e-3)


def test_text_needs_a_tokenizer(tiny_session: Session) -> None:
    with pytest.raises(InputTextError, match="text input needs a tokenizer"):
        tiny_session.text.encode(["a"])


@pytest.mark.fresh
def test_calls_do_not_fetch_their_memory_anew(minilm_ipex: Path) -> None:
    """Page faults per call, at a length whose tensors are larger than what glibc keeps by default."""
    code = """
import resource, sys
import runtime, torch
session = runtime.load(sys.argv[1], threads=2)
ids = torch.arange(384)[None] + 1000
for _ in range(6):
    session(input_ids=ids)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    session(input_ids=ids)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
"""
    done = run_python(code, minilm_ipex)
    assert int(done.stdout) < 500, done.stdout + done.stderr
