"""jit mode of the Trainer: the same metrics and losses as eager mode, whatever the batches; a fallback that is said."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from tests.conftest import LACKS_BF16, run_python, tiny_model

pytest.importorskip("accelerate")

from exporter.backends.candidates import onednn_problem
from exporter.backends.ipex.backend import IpexBackend
from exporter.trainer import ArtifactModel, JitEvaluation, JitTrainer, jit_model, part
from exporter.trainer.jit import jit_failure
from exporter.trainer.part import JitPart
from runtime import load
from runtime.errors import (
    BackendError,
    ExportedModelError,
    IpexMissingError,
    IpexVersionError,
    TraceError,
    VerificationError,
)
from runtime.host import requirements
from runtime.host.requirements import ipex_problem

HERE = requirements.detect()
NO_IPEX = ipex_problem(HERE) is not None
# Their own deprecations, of which a user of this project sees nothing that he could act on.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TASKS = ("text-classification", "token-classification", "question-answering")


# The timing of two ways to compute, for the tests that are about it.
SHARE_OF_TIME = part._share_of_time


@pytest.fixture(autouse=True)
def _first_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first candidate that is right is used, whatever these tiny models are fast with on this machine."""
    monkeypatch.setattr(part, "_share_of_time", lambda _one, _other: 0.99)


def rows(task: str, count: int = 21) -> list[dict[str, Any]]:
    """Of different lengths, the last batch smaller than the others."""
    draw = random.Random(5)
    made = []
    for number in range(count):
        ids = [draw.randrange(5, 290) for _ in range(draw.randrange(4, 30))]
        row: dict[str, Any] = {"input_ids": ids}
        if task == "text-classification":
            row["labels"] = number % 3
        elif task == "token-classification":
            row["labels"] = [draw.randrange(3) for _ in ids]
        else:
            row |= {"start_positions": draw.randrange(len(ids)), "end_positions": len(ids) - 1}
            # An answer outside the text: what the loss leaves out depends on the batch's own length.
            if number == 3:
                row["end_positions"] = 100
        made.append(row)
    return made


def collate(batch: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in batch)

    def padded(name: str, fill: int) -> torch.Tensor:
        return torch.tensor([[*row[name], *[fill] * (longest - len(row[name]))] for row in batch])

    ids = padded("input_ids", 0)
    made = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    for name in ("labels", "start_positions", "end_positions"):
        if name in batch[0]:
            single = isinstance(batch[0][name], int)
            made[name] = torch.tensor([row[name] for row in batch]) if single else padded(name, -100)
    return made


def trainer(model: Any, folder: Path, kind: type = JitTrainer, bf16: bool = False, **options: Any) -> Any:
    arguments = transformers.TrainingArguments(
        str(folder),
        per_device_eval_batch_size=8,
        per_device_train_batch_size=8,
        max_steps=2,
        learning_rate=1e-2,
        save_strategy="no",
        bf16_full_eval=bf16,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    return kind(model=model, args=arguments, data_collator=collate, **options)


@pytest.mark.parametrize("ipex", [pytest.param(True, marks=pytest.mark.skipif(NO_IPEX, reason="no IPEX")), False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("task", TASKS)
def test_predictions_and_losses_are_those_of_eager_mode(
    task: str, precision: str, ipex: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("bert", task, **({} if task == "question-answering" else {"num_labels": 3}))
    expected = trainer(model, tmp_path).predict(rows(task))
    jit = trainer(model, tmp_path, bf16=precision == "bf16", jit_mode_eval=True, use_ipex=ipex, jit_strict=True)
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    for _ in range(2):
        found = jit.predict(rows(task))
        assert found.metrics["test_loss"] == pytest.approx(expected.metrics["test_loss"], abs=tolerance)
        both = [
            one.predictions if isinstance(one.predictions, tuple) else (one.predictions,) for one in (found, expected)
        ]
        for answer, reference in zip(*both, strict=True):
            torch.testing.assert_close(
                torch.tensor(answer).float(), torch.tensor(reference), rtol=tolerance, atol=tolerance
            )
    assert jit.jit_failure is None
    told = [one.getMessage() for one in caplog.records if one.name == "exporter" and one.levelno >= logging.WARNING]
    # IPEX, which was asked for, has no bf16 without AVX-512; the native operators have.
    without = "jit mode goes on without IPEX: this processor lacks"
    assert [line[: len(without)] for line in told] == ([without] if ipex and precision == "bf16" and LACKS_BF16 else [])
    assert found.metrics["test_jit_compilation_time"] == 0.0, "traced once"


def test_training_goes_through_the_model_and_evaluation_follows_it(tmp_path: Path) -> None:
    model = tiny_model("bert", "text-classification", num_labels=3)
    data = rows("text-classification")
    jit = trainer(model, tmp_path, jit_mode_eval=True, jit_strict=True, train_dataset=data, eval_dataset=data)
    before = jit.evaluate()["eval_loss"]
    jit.train()
    after = jit.evaluate()["eval_loss"]
    assert after == pytest.approx(trainer(model, tmp_path).evaluate(data)["eval_loss"], abs=1e-5)
    assert abs(after - before) > 1e-3
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize(("share", "choice"), [(2.0, "eager"), (0.5, "plain")])
def test_the_fastest_is_used_and_kept(
    share: float, choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is timed takes this share of the time of what was fastest before: of other candidates, of eager mode."""
    made: list[str] = []
    make = JitPart._make

    def recorded(self: JitPart, candidate: Any, *arguments: Any) -> Any:
        made.append(candidate.backend.name)
        return make(self, candidate, *arguments)

    monkeypatch.setattr(part, "_share_of_time", lambda _one, _other: share)
    monkeypatch.setattr(JitPart, "_make", recorded)
    model = tiny_model("bert", "text-classification", num_labels=3)
    data = rows("text-classification")
    jit = trainer(model, tmp_path, jit_mode_eval=True, jit_strict=True, train_dataset=data, eval_dataset=data)
    assert [jit.jit_choice] == [None]
    first = jit.evaluate()["eval_loss"]
    assert first == pytest.approx(trainer(model, tmp_path).evaluate(data)["eval_loss"], abs=1e-5)
    assert (jit.jit_choice, jit.jit_failure) == (choice, None)
    # The first backend with PyTorch's own attention too.
    assert made[-1] == "plain" and len(made) == len(set(made)) + 1
    made.clear()
    jit.train()
    assert jit.evaluate()["eval_loss"] == pytest.approx(trainer(model, tmp_path).evaluate(data)["eval_loss"], abs=1e-5)
    assert (jit.jit_choice, made) == (choice, [] if choice == "eager" else [choice])


def test_what_takes_longer_has_the_larger_share() -> None:
    share = SHARE_OF_TIME(lambda: time.sleep(0.02), lambda: time.sleep(0.005))
    assert 2 < share < 6


@pytest.mark.skipif(NO_IPEX, reason="no IPEX")
def test_the_library_of_ipex_leaves_gradients_as_they_are() -> None:
    """It replaces kernels for the whole process, and PyTorch warns that one has no gradient of its own."""
    code = """
import torch
from tests.conftest import ROOT, run_python, tiny_model
from runtime.host import ipex_library
model = tiny_model("bert", "text-classification", num_labels=3)
def gradients():
    model.zero_grad(set_to_none=True)
    ids = torch.arange(5, 45).reshape(4, 10)
    model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    return [weight.grad.clone() for weight in model.parameters()]
before = gradients()
ipex_library.register_ipex()
after = gradients()
error = max(((a - b).abs().max() / b.abs().max().clamp(min=1e-6)).item() for a, b in zip(after, before))
print(len(after) > 30, error < 1e-4)
"""
    done = run_python(code)
    assert done.stdout.split() == ["True", "True"], done.stdout + done.stderr


class _Inner(torch.nn.Module):
    """Stands for a model's inner part; `behave` is what a tracer does not follow."""

    def __init__(self, behave: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(300, 8)
        self.linear = torch.nn.Linear(8, 8)
        self.behave = behave

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.behave(self.linear(self.embed(input_ids))) * attention_mask[..., None],)


class Custom(torch.nn.Module):
    """A model of somebody's own, which no auto class knows."""

    base_model_prefix = "inner"

    def __init__(self, behave: Callable[[torch.Tensor], torch.Tensor] = lambda hidden: hidden) -> None:
        super().__init__()
        self.inner = _Inner(behave)
        self.head = torch.nn.Linear(8, 3)
        self.config = SimpleNamespace(keys_to_ignore_at_inference=[])

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: Any = None) -> dict[str, Any]:
        logits = self.head(self.inner(input_ids, attention_mask)[0].mean(1))
        answer = {"logits": logits}
        return answer if labels is None else {"loss": torch.nn.functional.cross_entropy(logits, labels)} | answer


def refuses(hidden: torch.Tensor) -> torch.Tensor:
    if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        raise RuntimeError("this part cannot be traced")
    return hidden


def decides(hidden: torch.Tensor) -> torch.Tensor:
    """By the length of the batch: a trace keeps the first one's decision."""
    return hidden * 3 if int(hidden.shape[1]) > 20 else hidden


@pytest.mark.parametrize(
    "behave, reason, error",
    [(refuses, "this part cannot be traced", TraceError), (decides, "the trace is wrong at", VerificationError)],
)
def test_a_model_that_cannot_be_traced(
    behave: Any, reason: str, error: type[Exception], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning with the reason, and eager mode's metric; with strict an error."""
    torch.manual_seed(3)
    model = Custom(behave)
    data = sorted(rows("text-classification", 32), key=lambda row: len(row["input_ids"]))
    expected = trainer(model, tmp_path).predict(data)
    jit = trainer(model, tmp_path, jit_mode_eval=True)
    with caplog.at_level(logging.WARNING, "exporter"):
        found = jit.predict(data)
        jit.predict(data)
    assert found.metrics["test_loss"] == pytest.approx(expected.metrics["test_loss"], abs=1e-5)
    failed = [record.getMessage() for record in caplog.records if "failed to use PyTorch jit mode" in record.message]
    assert len(failed) == 1 and reason in failed[0] and jit.jit_failure is not None
    with pytest.raises(error):
        trainer(model, tmp_path, jit_mode_eval=True, jit_strict=True).predict(data)


def _no_linear(kind: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """Models whose inner part has no `nn.Linear`, and a batch."""
    if kind == "gpt2":
        config = transformers.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, vocab_size=200, n_positions=64, num_labels=3, pad_token_id=0
        )
        ids = torch.randint(1, 200, (4, 16), generator=torch.Generator().manual_seed(1))
        return transformers.GPT2ForSequenceClassification(config), {"input_ids": ids, "labels": torch.arange(4) % 3}
    batch = {"pixel_values": torch.randn(4, 3, 64, 64), "labels": torch.arange(4) % 3}
    if kind == "resnet":
        sizes: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
        small = transformers.ResNetConfig(layer_type="basic", num_labels=3, **sizes)
        return transformers.ResNetForImageClassification(small), batch
    mobile = transformers.MobileNetV2Config(depth_multiplier=0.25, num_labels=3)
    return transformers.MobileNetV2ForImageClassification(mobile), batch


@pytest.mark.parametrize("kind", ["resnet", "mobilenet", "gpt2"])
def test_a_model_without_linears_is_traced(kind: str) -> None:
    """oneDNN's linears have nothing to do in it: the next candidate, the plain trace, serves it."""
    torch.manual_seed(3)
    model, batch = _no_linear(kind)
    with torch.no_grad():
        expected = model.eval()(**batch)
        found = jit_model(model, batch, strict=True)(**batch)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(NO_IPEX, reason="no IPEX")
def test_a_model_that_ipex_cannot_prepare(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It was asked for by name, so a warning says that the trace is made without it."""

    def fails(*_: Any) -> Any:
        raise BackendError("ipex.optimize failed: no idea", "", "export with --backend plain")

    monkeypatch.setattr(IpexBackend, "optimise", fails)
    batch = collate(rows("text-classification")[:4])
    jit = jit_model(tiny_model("bert", "text-classification", num_labels=3), batch, use_ipex=True, strict=True)
    assert jit_failure(jit) is None
    records = [record for record in caplog.records if record.name == "exporter"]
    said = [record.getMessage() for record in records if record.levelno == logging.WARNING]
    assert said == ["jit mode goes on without IPEX: ipex.optimize failed: no idea"]


def test_no_advice_about_options_of_another_command(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batch = collate(rows("text-classification")[:4])
    with torch.no_grad():
        jit_model(Custom(refuses), batch)
        monkeypatch.setattr(requirements, "detect", lambda: replace(HERE, cpu_flags=frozenset()))
        jit_model(Custom(), batch, bf16=True)
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("failed to use")]
    assert len(said) == 2 and not any(" --" in line for line in said)
    assert "avx512bw for bf16" not in said[0] and said[1].endswith("use another machine, or evaluate in fp32")


def test_a_model_without_an_inner_part_is_traced_as_a_whole(tmp_path: Path) -> None:
    """Labels are inputs of the trace then, and the loss is one of its answers."""

    class Flat(Custom):
        base_model_prefix = ""

    torch.manual_seed(3)
    model, data = Flat(), rows("text-classification")
    expected = trainer(model, tmp_path).predict(data)
    found = trainer(model, tmp_path, jit_mode_eval=True, jit_strict=True).predict(data)
    assert found.metrics["test_loss"] == pytest.approx(expected.metrics["test_loss"], abs=1e-5)


def test_a_trainer_of_ones_own(tmp_path: Path) -> None:
    class Mine(JitEvaluation, transformers.Trainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            outputs = model(**inputs)
            return (2 * outputs["loss"], outputs) if return_outputs else 2 * outputs["loss"]

    model, data = tiny_model("bert", "text-classification", num_labels=3), rows("text-classification")
    plain = trainer(model, tmp_path).predict(data).metrics["test_loss"]
    found = trainer(model, tmp_path, kind=Mine, jit_mode_eval=True, jit_strict=True).predict(data)
    assert found.metrics["test_loss"] == pytest.approx(2 * plain, abs=1e-4)


@pytest.mark.skipif(
    not hasattr(transformers.TrainingArguments, "jit_mode_eval"), reason="transformers has no such arguments any more"
)
def test_the_flags_of_older_releases_are_taken_over(tmp_path: Path) -> None:
    model, data = tiny_model("bert", "text-classification", num_labels=3), rows("text-classification")
    arguments = transformers.TrainingArguments(
        str(tmp_path), jit_mode_eval=True, use_cpu=True, report_to=[], disable_tqdm=True
    )
    jit = JitTrainer(model=model, args=arguments, data_collator=collate, jit_strict=True)
    assert (jit.jit_mode_eval, arguments.jit_mode_eval) == (True, False)
    assert jit.predict(data).metrics["test_jit_compilation_time"] > 0


# ---- Without a Trainer ----


def test_jit_model_in_a_loop() -> None:
    model = tiny_model("distilbert", "text-classification", num_labels=3).train()
    batches = [collate(rows("text-classification")[begin : begin + 5]) for begin in (0, 5, 10, 15, 20)]
    with torch.no_grad():
        evaluated = jit_model(model, batches[0], strict=True)
        expected = [model.eval()(**batch) for batch in batches]
        for batch, reference in zip(batches, expected, strict=True):
            answer = evaluated(**batch)
            assert type(answer) is type(reference)
            torch.testing.assert_close(answer.logits, reference.logits, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(answer.loss, reference.loss, rtol=1e-4, atol=1e-5)
    assert type(evaluated) is type(model) and evaluated.config is model.config


def test_every_new_shape_is_compared_until_eight_were_right() -> None:
    seen = []

    def watch(hidden: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            seen.append(hidden.shape[1])
        return hidden

    evaluated = jit_model(Custom(watch), strict=True)
    lengths = [10, 10, 3, 4, 5, 6, 7, 8, 9, 9, 2, 5, 12]
    with torch.no_grad():
        for length in lengths:
            evaluated(torch.ones(2, length, dtype=torch.int64), torch.ones(2, length, dtype=torch.int64))
    # Each shape once; what lies beyond all others is compared whenever it comes.
    assert seen == [10, 3, 4, 5, 6, 7, 8, 9, 2, 12]


@pytest.mark.skipif(not NO_IPEX, reason="IPEX is here")
def test_ipex_that_is_missing_is_said() -> None:
    with pytest.raises((IpexMissingError, IpexVersionError)):
        jit_model(Custom(), use_ipex=True)


# ---- An artifact in the model's place ----


@pytest.mark.skipif(onednn_problem(HERE) is not None, reason="one line of torch is enough")
@pytest.mark.parametrize("task", TASKS)
def test_an_artifact_stands_in_for_the_model(
    task: str, tiny_folder: Callable[..., Path], exported: Callable[..., Any], tmp_path: Path
) -> None:
    config = {} if task == "question-answering" else {"num_labels": 3}
    artifact = exported(tiny_folder("bert", task, **config), task=task, backend="plain").output
    expected = trainer(tiny_model("bert", task, **config), tmp_path).predict(rows(task))
    model = ArtifactModel(load(artifact))
    labels = ["start_positions", "end_positions"] if task == "question-answering" else ["labels"]
    arguments = transformers.TrainingArguments(
        str(tmp_path),
        label_names=labels,
        per_device_eval_batch_size=8,
        use_cpu=True,
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    found = transformers.Trainer(model=model, args=arguments, data_collator=collate).predict(rows(task))
    assert found.metrics["test_loss"] == pytest.approx(expected.metrics["test_loss"], abs=1e-4)


def test_its_losses_are_those_of_transformers_heads() -> None:
    """By the labels: several classes at once, and numbers."""
    from exporter.trainer.artifact_model import _loss

    for problem, labels, count in (
        ("multi_label_classification", torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), 3),
        ("regression", torch.tensor([0.5, -1.0]), 1),
    ):
        model = tiny_model("bert", "text-classification", num_labels=count, problem_type=problem)
        with torch.no_grad():
            answer = model(input_ids=torch.tensor([[5, 6, 7], [8, 9, 10]]), labels=labels)
        found = _loss("text-classification", {"logits": answer.logits}, {"labels": labels})
        assert found is not None
        torch.testing.assert_close(found, answer.loss)
    assert _loss("feature-extraction", {"last_hidden_state": torch.ones(1)}, {"labels": torch.ones(1)}) is None


def test_errors_are_of_the_tree() -> None:
    with pytest.raises(ExportedModelError):
        jit_model(Custom(lambda hidden: refuses(hidden)), collate(rows("text-classification")[:2]), strict=True)
