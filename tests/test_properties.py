"""Properties that hold for whatever Hypothesis thinks of: batching, the queue, the zip reader, the layout pass.

The same examples in every run, and without limits of time for one of them.
"""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from exporter.backends.onednn.padding import leave_out_padding
from exporter.tracing.graphs.graph import shapes
from runtime.artifact.zip_reader import Archive
from runtime.errors import DeadlineError, NotAnArtifactError, PoolFullError, UnsafeArchiveError
from runtime.format.manifest import Axis, TensorSpec, ValueRange
from runtime.pool import Pool
from runtime.serving.batching import Batcher
from runtime.serving.request_queue import RequestQueue
from tests.test_onednn import frozen

REPEATABLE = settings(derandomize=True, deadline=None, database=None)

# Batching.

ROWS, TOKENS = Axis("batch", 1, None), Axis("sequence", 1, 64)
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
PAD = {"input_ids": 9, "attention_mask": 0, "token_type_ids": 7}


def manifest(side: str = "right") -> Any:
    """What batching asks of one: outputs per token, per token and feature, and per row."""
    return SimpleNamespace(
        inputs=tuple(TensorSpec(name, "int64", (ROWS, TOKENS), ValueRange(0, 99)) for name in INPUTS),
        outputs=(
            TensorSpec("tokens", "float32", (ROWS, TOKENS)),
            TensorSpec("features", "float32", (ROWS, TOKENS, Axis("features", 2, 2))),
            TensorSpec("rows", "float32", (ROWS,)),
        ),
        text=SimpleNamespace(padding_side=side, pad_id=PAD["input_ids"], pad_type_id=PAD["token_type_ids"]),
    )


def compute(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A model whose outputs for a token depend on that token, and for a row on its real tokens."""
    ids, mask, types = (inputs[name].float() for name in INPUTS)
    tokens = ids * 100 + mask * 10 + types
    return {"tokens": tokens, "features": torch.stack([tokens, -tokens], -1), "rows": (tokens * mask).sum(1)}


@st.composite
def requests(draw: st.DrawFn) -> list[torch.Tensor]:
    """The inputs of one request, in order."""
    size = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    numbers = torch.tensor(draw(st.lists(st.integers(0, 8), min_size=size[0] * size[1], max_size=size[0] * size[1])))
    ids = numbers.reshape(size)
    return [ids, (ids % 3 != 0).long(), ids % 2]


@REPEATABLE
@given(st.lists(requests(), min_size=1, max_size=6), st.sampled_from(["left", "right"]))
def test_a_batch_gives_each_request_its_own_rows(asked: list[list[torch.Tensor]], side: str) -> None:
    batcher = Batcher(manifest(side))
    assert len({batcher.key(tensors) for tensors in asked}) == 1
    before = [[tensor.clone() for tensor in tensors] for tensors in asked]
    batch = batcher.collate(asked)
    rows, longest = sum(map(batcher.rows, asked)), max(map(batcher.length, asked))
    # No more than rows times the longest, which is what the queue counts; all else is padding.
    assert {tuple(tensor.shape) for tensor in batch.values()} == {(rows, longest)}
    for place, name in enumerate(INPUTS):
        real = sum(int(tensors[place].sum()) for tensors in asked)
        padding = rows * longest - sum(tensors[place].numel() for tensors in asked)
        assert int(batch[name].sum()) == real + padding * PAD[name]
    found = batcher.split(compute(batch), asked)
    for tensors, outputs in zip(before, found, strict=True):
        alone = compute(dict(zip(INPUTS, tensors, strict=True)))
        assert all(torch.equal(outputs[name], alone[name]) for name in alone)
    for old, new in zip(before, asked, strict=True):
        assert all(map(torch.equal, old, new))


# The queue.

# A few requests fill it, and lengths are so few that some are equally near.
BUDGET = 24
# Seconds to the deadline.
LEFT = st.none() | st.floats(0, 5)


@dataclass(eq=False)
class Asked:
    """One that waits."""

    rows: int
    length: int
    key: str
    deadline: float | None
    most_rows: int | None


class Queueing(RuleBasedStateMachine):
    """The queue beside a list in the order of arrival, searched and sorted anew each time."""

    @initialize()
    def begin(self) -> None:
        self.queue: RequestQueue[Asked] = RequestQueue(BUDGET)
        self.known: list[Asked] = []
        self.now = 0.0

    @rule(several=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 8), st.sampled_from("ab"), LEFT), min_size=1))
    def some_arrive(self, several: list[tuple[int, int, str, float | None]]) -> None:
        for rows, length, key, left in several:
            # The limit of rows is an artifact's, as the key is.
            most = {"a": None, "b": 4}[key]
            self.known.append(Asked(rows, length, key, None if left is None else self.now + left, most))
            self.queue.add(self.known[-1])

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def is_cancelled(self, data: st.DataObject) -> None:
        gone = self.known.pop(data.draw(st.integers(0, len(self.known) - 1)))
        self.queue.remove(gone)
        assert gone not in self.queue

    @precondition(lambda self: self.known)
    @rule()
    def is_taken(self) -> None:
        batch, full = self.queue.batch()
        assert batch == self.expected()
        rows, longest = sum(one.rows for one in batch), max(one.length for one in batch)
        assert len(batch) == 1 or rows * longest <= BUDGET
        if not full:
            # Then all of its kind are in it.
            assert len(batch) == sum(one.key == batch[0].key for one in self.known)
        for one in batch:
            self.queue.remove(one)
            self.known.remove(one)

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        late = [one for one in self.known if one.deadline is not None and one.deadline < self.now]
        assert sorted(self.queue.expired(self.now), key=id) == sorted(late, key=id)
        self.known = [one for one in self.known if one not in late]

    @invariant()
    def counts_and_order_agree(self) -> None:
        assert (len(self.queue), self.queue.rows) == (len(self.known), sum(one.rows for one in self.known))
        assert all(one in self.queue for one in self.known)
        if self.known:
            assert self.queue.oldest is self.known[0]

    def expected(self) -> list[Asked]:
        """The oldest and its nearest, until one does not fit."""
        oldest, *others = self.known
        alike = [one for one in others if one.key == oldest.key]
        batch, rows, longest = [oldest], oldest.rows, oldest.length
        for one in sorted(alike, key=lambda one: (abs(one.length - oldest.length), one.length > oldest.length)):
            rows, longest = rows + one.rows, max(longest, one.length)
            if rows * longest > BUDGET or rows > (oldest.most_rows or rows):
                break
            batch.append(one)
        return batch


def test_the_queue_is_what_sorting_everything_would_give() -> None:
    run_state_machine_as_test(Queueing, settings=settings(REPEATABLE, max_examples=60, stateful_step_count=40))


class Held:
    """A session that tells when it is asked, and answers when it may."""

    def __init__(self) -> None:
        self.manifest = manifest()
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.may_answer.set()

    def __call__(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        self.asked.set()
        assert self.may_answer.wait(30)
        return compute(inputs)


def one_request(rows: int, first: int) -> dict[str, torch.Tensor]:
    ids = torch.full((rows, 2), first)
    return dict(zip(INPUTS, (ids, torch.ones_like(ids), torch.zeros_like(ids)), strict=True))


@settings(REPEATABLE, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=12))
def test_a_pool_refuses_beyond_its_capacity_and_answers_all_else(asked: list[tuple[int, bool]]) -> None:
    """The rows of each request, and whether its deadline has passed before another one comes."""
    session: Any = Held()
    waiting: list[tuple[int, bool]] = []
    accepted = []
    with Pool(session, workers=1, capacity=8, max_wait_ms=0) as pool, session:
        first = pool.submit(one_request(1, 0))
        assert session.asked.wait(30)
        for number, (rows, late) in enumerate(asked):
            if waiting and sum(size for size, _ in waiting) + rows > 8:
                # Room is made first by those that nobody wants any more.
                waiting = [one for one in waiting if not one[1]]
            full = bool(waiting) and sum(size for size, _ in waiting) + rows > 8
            try:
                future = pool.submit(one_request(rows, number), deadline_s=-1.0 if late else None)
            except PoolFullError:
                assert full
            else:
                assert not full
                waiting.append((rows, late))
                accepted.append((number, rows, late, future))
        session.may_answer.set()
        assert first.result(30)["rows"].tolist() == [20.0]
        for number, rows, late, future in accepted:
            if late:
                assert isinstance(future.exception(30), DeadlineError)
            else:
                assert torch.equal(future.result(30)["rows"], compute(one_request(rows, number))["rows"])


# The zip reader.

LETTERS = st.characters(categories=["L", "N", "P"], exclude_characters="/\\")
PART = st.text(LETTERS, min_size=1, max_size=6).filter(lambda part: part not in (".", "..") and part.isprintable())
FOLDER = st.sampled_from(["", "code/"])
NAME = st.lists(PART, min_size=1, max_size=3).map("/".join)
Contents = dict[str, bytes]


class Pipe(io.BytesIO):
    """A file that cannot seek: sizes come behind the data."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise OSError

    def tell(self) -> int:
        raise OSError


@st.composite
def archives(draw: st.DrawFn) -> tuple[bytes, Contents]:
    """A zip as Python writes it, in one folder, code and pickles compressed or not; and what is in it."""
    entries = st.tuples(FOLDER, NAME).map("".join)
    names = draw(st.lists(entries, min_size=1, max_size=5, unique_by=lambda name: name.lower()))
    contents = {name: draw(st.binary(max_size=80)) for name in names}
    top = draw(PART)
    file = Pipe() if draw(st.booleans()) else io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, content in contents.items():
            compresses = name.startswith("code/") and draw(st.booleans())
            made.writestr(f"{top}/{name}", content, zipfile.ZIP_DEFLATED if compresses else zipfile.ZIP_STORED)
    return file.getvalue(), contents


def read(data: bytes) -> Contents:
    archive = Archive(io.BytesIO(data), "f.pt")
    return {name: archive.read(name, 100) for name in archive.records}


@settings(REPEATABLE, max_examples=200)
@given(archives())
def test_what_python_writes_reads_equal(made: tuple[bytes, Contents]) -> None:
    data, contents = made
    assert read(data) == contents


@settings(REPEATABLE, max_examples=600)
@given(archives(), st.integers(0, 10**6), st.binary(max_size=3), st.sampled_from([0, 0, 0, 1, 3, -1]))
def test_a_changed_archive_reads_equal_or_is_refused_by_name(
    made: tuple[bytes, Contents], at: int, new: bytes, shorter: int
) -> None:
    """Bytes written over, mostly; also some taken out or put in."""
    data, contents = made
    at %= len(data)
    behind = at + max(0, len(new) + shorter)
    try:
        found = read(data[:at] + new + data[behind:])
    except (NotAnArtifactError, UnsafeArchiveError) as error:
        assert str(error).startswith("f.pt")
    else:
        assert found == contents


# The layout pass.

Step = Callable[[torch.Tensor], torch.Tensor]
# Of [rows, tokens, 8]: each token alone, or each with what all tokens of its row come to. Padding that repeats the last
# token stays so.
STEPS: dict[str, Step] = {
    "tanh": torch.tanh,
    "a number": lambda x: x * 0.5 + 1,
    "a norm": lambda x: torch.nn.functional.layer_norm(x, [8]),
    "features' shares": lambda x: x.softmax(-1),
    "features' mean": lambda x: x - x.mean(-1, keepdim=True),
    "features halved": lambda x: torch.cat([x[..., 4:], x[..., :4]], -1),
    "chunks": lambda x: torch.cat(x.chunk(2, -1)[::-1], -1),
    "itself": lambda x: x + torch.sigmoid(x),
    "heads": lambda x: x.view(x.shape[0], x.shape[1], 2, 4).transpose(1, 2).tanh().transpose(1, 2).reshape(x.shape),
    "turned": lambda x: x.permute(2, 0, 1).relu().permute(1, 2, 0),
    "one more axis": lambda x: x.unsqueeze(1).neg().squeeze(1),
    "a split": lambda x: torch.cat(x.split([3, 5], -1), -1),
    "tokens' mean": lambda x: x - x.mean(1, keepdim=True),
    "tokens' most": lambda x: x - x.amax(1, keepdim=True),
    "rows' mean": lambda x: x + x.mean(0, keepdim=True).mean(1, keepdim=True),
    "sizes": lambda x: x * (1 / x.shape[2]),
}


class Layers(torch.nn.Module):
    """Two attentions, and the steps between them."""

    def __init__(self, steps: Sequence[str]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.joint, self.out = torch.nn.Linear(8, 24), torch.nn.Linear(8, 8)
        self.steps = steps

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hides = (1 - mask[:, None, None, :].float()) * -1e9
        x = self.attend(x, hides)
        for step in self.steps:
            x = STEPS[step](x)
        return self.attend(x, hides)

    def attend(self, x: torch.Tensor, hides: torch.Tensor) -> torch.Tensor:
        rows, size = x.shape[:2]
        query, keys, values = (part.view(rows, size, 2, 4).transpose(1, 2) for part in self.joint(x).split(8, dim=-1))
        shares = torch.softmax(query @ keys.transpose(2, 3) * 0.5 + hides, -1)
        found: torch.Tensor = self.out((shares @ values).transpose(1, 2).reshape(rows, size, 8)) + x
        return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@settings(REPEATABLE, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(list(STEPS)), min_size=1, max_size=5),
    st.lists(st.integers(1, 70), min_size=2, max_size=6).map(lambda some: [64, *some]),
)
def test_a_graph_without_padding_gives_the_same_outputs(steps: list[str], lengths: list[int]) -> None:
    module = Layers(steps)
    traced, example = frozen(module, torch.randn(2, 40, 8), torch.ones(2, 40, dtype=torch.int64))
    assert leave_out_padding(traced, list(traced.graph.inputs())[2], shapes(traced, example)) >= 1
    counts, size = torch.tensor(lengths).unsqueeze(1), max(lengths)
    mask = (torch.arange(size) < counts).long()
    # Padding repeats the last token, as it does in what the file gives: so tokens that are mixed find the same.
    x = torch.randn(len(lengths), size, 8)
    x = x[torch.arange(len(lengths)).unsqueeze(1), torch.minimum(torch.arange(size), counts - 1)]
    with torch.no_grad():
        torch.testing.assert_close(traced(x.clone(), mask), module(x.clone(), mask), rtol=1e-4, atol=1e-5)
