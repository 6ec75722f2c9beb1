"""Metrics on files of labelled examples: the files, the numbers, the examples' commands, `export-model --evaluate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import transformers

from exporter.verification.subprocesses import script as start
from tests.conftest import BIN, ROOT, run

pytest.importorskip("torchmetrics")

from exporter import ExportRequest, export
from exporter.evaluation import evaluation_for
from exporter.evaluation.comparison import Labelled
from exporter.evaluation.files import read_conll, read_squad, read_table
from runtime.errors import EvaluationError, MetricDropError, RequestError

EXAMPLES = {
    "text-classification": (
        "text_classification/run_classification.py",
        "text_classification/sample.csv",
        "eval_accuracy",
    ),
    "token-classification": ("token_classification/run_ner.py", "token_classification/sample.conll", "eval_f1"),
    "question-answering": ("question_answering/run_qa.py", "question_answering/sample.json", "eval_f1"),
}


@pytest.fixture(scope="session")
def tokenizer(minilm: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(minilm)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Models trained for a few seconds on docstrings, made once a task; and where the data lies."""
    folder = tmp_path_factory.mktemp("finetune")
    done = run([*start(ROOT / "examples/finetune/docstrings.py"), folder / "data"])
    assert done.returncode == 0, done.stderr

    def make(task: str) -> Path:
        if not (folder / task).exists():
            command = [*start(ROOT / "examples/finetune/finetune.py"), task, "--data", folder / "data"]
            done = run([*command, "--output", folder / task, "--examples", 96])
            assert done.returncode == 0, done.stderr
        return folder / task

    return make


# ---- Files ----


def test_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"two\nlines, one row",b\nplain,c\n')
    rows = read_table(tmp_path / "a.csv", ("text", "label"))
    assert [(row["text"], row["label"]) for row in rows] == [("two\nlines, one row", "b"), ("plain", "c")]
    (tmp_path / "a.jsonl").write_text('{"text": "é", "label": "b"}\n\n{"text": "x", "label": "c"}\n')
    assert [row["text"] for row in read_table(tmp_path / "a.jsonl", ("text", "label"))] == ["é", "x"]


def test_conll(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("-DOCSTART- O\n\nthe DT O\npath NN B-PARAM\n\n\nend X O\n")
    rows = read_conll(tmp_path / "a.conll")
    assert [(row["words"], row["labels"]) for row in rows] == [(["the", "path"], ["O", "B-PARAM"]), (["end"], ["O"])]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", "text\nx\n", r"a\.csv:2 has no label; expected text, label in every row"),
        ("a.csv", "", "holds no example"),
        ("a.jsonl", '{"text": "x", "label": "b"}\nno\n', r"a\.jsonl:2 is not JSON"),
        ("a.jsonl", "[1]\n", "holds list; expected an object"),
        ("a.conll", "alone\n", "holds 'alone'; expected a word and its label"),
        ("a.conll", "\n\n", "holds no example"),
        ("a.json", "{}", "is not in SQuAD's form"),
        ("a.json", '{"data": []}', "holds no example"),
        ("a.json", "\udcff", "cannot read"),
    ],
)
def test_files_that_do_not_fit(name: str, content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(EvaluationError, match=message):
        {"csv": read_table, "jsonl": read_table}.get(name[2:], read_conll if name.endswith("conll") else read_squad)(
            path, *([("text", "label")] if name[2:] in ("csv", "jsonl") else [])
        )
    with pytest.raises(EvaluationError, match="cannot read"):
        read_squad(tmp_path / "nothing.json")


# ---- From scores to metrics ----


def test_classes(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,no\nb,yes\nc,yes\nd,no\n")
    evaluation = evaluation_for("text-classification", tokenizer, ["no", "yes"])
    rows = evaluation.read(tmp_path / "a.csv")
    features = evaluation.features(rows)
    scores = [numpy.array([[1, 0], [0, 1], [1, 0], [1, 0]])]
    assert evaluation.score(rows, features, scores) == pytest.approx({"accuracy": 75.0, "f1": 100 * (0.8 + 2 / 3) / 2})
    assert evaluation.predictions(rows, features, scores) == ["no", "yes", "no", "no"]
    with pytest.raises(EvaluationError, match="label 'no'; expected one of the model's: yes"):
        evaluation_for("text-classification", tokenizer, ["yes"]).features(rows)


def test_entities(tokenizer: Any) -> None:
    """A word of several tokens counts once."""
    evaluation = evaluation_for("token-classification", tokenizer, ["O", "B-X", "I-X"])
    rows = [{"words": ["floccinaucinihilipilification", "of", "it"], "labels": ["B-X", "I-X", "O"]}]
    features = evaluation.features(rows)
    labels = features[0]["labels"]
    assert len(labels) > 6 and [label for label in labels if label != -100] == [1, 2, 0]
    right = numpy.eye(3)[[max(label, 0) for label in labels]]
    assert evaluation.score(rows, features, [[right]])["f1"] == 100
    wrong = right.copy()
    wrong[labels.index(2)] = [1, 0, 0]
    found = evaluation.score(rows, features, [[wrong]])
    assert (found["f1"], round(found["accuracy"], 1)) == (0, 66.7)
    batch = evaluation.collate([*features, *evaluation.features([{"words": ["a"], "labels": ["O"]}])])
    assert batch["labels"].shape == batch["input_ids"].shape and batch["labels"][1, -1] == -100


def test_answers_of_long_texts(tokenizer: Any) -> None:
    """The context has several windows; the span of the best one is given, as it stands in the text."""
    context = " ".join(f"word{number}" for number in range(60)) + " The  Answer, here. " + "end " * 30
    begin = context.index("The  Answer")
    rows = [{"id": "7", "question": "what?", "context": context, "answers": [("The  Answer", begin)]}]
    evaluation = evaluation_for("question-answering", tokenizer, [], max_length=64)
    features = evaluation.features(rows)
    assert len(features) > 2
    scores: list[list[numpy.ndarray]] = [[], []]
    for feature in features:
        for found, name in zip(scores, evaluation.label_names, strict=True):
            one = numpy.zeros(80)
            one[feature[name]] = 5.0 if feature["start_positions"] else 0.0
            found.append(one)
    assert evaluation.predictions(rows, features, scores) == ["The  Answer"]
    assert evaluation.score(rows, features, scores) == {"exact_match": 100, "f1": 100}


def test_what_cannot_be_evaluated(tokenizer: Any) -> None:
    with pytest.raises(EvaluationError, match="no metric for fill-mask"):
        evaluation_for("fill-mask", tokenizer, [])
    with pytest.raises(EvaluationError, match="a fast one"):
        evaluation_for("text-classification", object(), [])


# ---- The examples, as their README says ----


@pytest.mark.slow
@pytest.mark.parametrize("task", EXAMPLES)
def test_the_examples_commands(task: str, trained: Callable[[str], Path], tmp_path: Path) -> None:
    script, sample, metric = EXAMPLES[task]
    command = [*start(ROOT / "examples" / script), "--model_name_or_path", trained(task)]
    command += ["--validation_file", ROOT / "examples" / sample, "--output_dir", tmp_path, "--do_eval"]
    found = {}
    for name, flags in {
        "eager": ["--do_predict"],
        "jit": ["--jit_mode_eval", "--use_ipex", "--bf16", "--strict"],
    }.items():
        done = run([*command, *flags])
        assert done.returncode == 0, done.stderr
        lines = [line.split() for line in done.stdout.splitlines() if line.startswith("eval_")]
        found[name] = {key: float(value) for key, value in lines}
        assert found[name]["eval_samples_per_second"] > 0
    # 24 sentences, 10 sentences, 8 questions: a single other answer is several points.
    assert found["jit"][metric] == pytest.approx(found["eager"][metric], abs=13)
    assert found["jit"]["eval_jit_compilation_time"] > 0
    answers = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert all("answer" in json.loads(line) for line in answers) and len(answers) in (24, 10, 8)


@pytest.mark.slow
def test_what_the_examples_refuse(tiny_folder: Callable[..., Path]) -> None:
    script, _, _ = EXAMPLES["text-classification"]
    command = [*start(ROOT / "examples" / script), "--model_name_or_path", "x"]
    done = run(command)
    assert done.returncode == 2 and "give --do_eval or --do_predict" in done.stderr
    command = [*command[:-1], tiny_folder(), "--do_eval", "--validation_file", "x.csv"]  # type: ignore[list-item]
    done = run(command)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("run_classification.py: ")


# ---- export-model --evaluate ----


@pytest.mark.slow
def test_export_reports_both_metrics(trained: Callable[[str], Path], tmp_path: Path) -> None:
    folder = trained("text-classification")
    command = [BIN / "export-model", folder, "-o", tmp_path / "m.pt", "--bf16", "--backend", "plain"]
    data = folder.parent / "data/validation.classification.csv"
    done = run([*command, "--evaluate", data, "--max-metric-drop", "2", "--json"])
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    known = json.loads((folder / "metrics.json").read_text())
    assert metrics["main"] == "accuracy" and metrics["examples"] > 300
    # Texts are cut at 64 tokens in training's own evaluation.
    assert metrics["model"]["accuracy"] == pytest.approx(known["accuracy"], abs=1)
    assert metrics["artifact"]["accuracy"] == pytest.approx(metrics["model"]["accuracy"], abs=1)


def test_a_drop_that_is_too_large(tmp_path: Path, tokenizer: Any) -> None:
    labelled = Labelled("v.csv", evaluation_for("text-classification", tokenizer, ["a"]), [], [], ())
    request = ExportRequest("m", tmp_path / "m.pt", evaluate="v.csv", max_metric_drop=0.5)
    model, good, bad = {"accuracy": 90.0}, {"accuracy": 89.5}, {"accuracy": 89.4}
    assert labelled.compare(model, good, request).summary.startswith("accuracy 90.00 → 89.50")
    with pytest.raises(MetricDropError, match=r"accuracy on v\.csv is 89\.40, 0\.60 points below the model's 90\.00"):
        labelled.compare(model, bad, request)


def test_requests_that_make_no_sense(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    for options, message in (
        ({"max_metric_drop": 1.0}, "evaluate is not"),
        ({"max_metric_drop": -1.0, "evaluate": "v.csv"}, "max_metric_drop is -1.0"),
        ({"verify": "off", "evaluate": "v.csv"}, "verify is off"),
    ):
        with pytest.raises(RequestError, match=message):
            ExportRequest("m", tmp_path / "m.pt", **options)
    with pytest.raises(EvaluationError, match="has no fast tokenizer"):
        export(ExportRequest(str(tiny_folder()), tmp_path / "m.pt", evaluate="v.csv"))
    assert list(tmp_path.iterdir()) == []
