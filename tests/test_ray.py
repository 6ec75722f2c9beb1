"""The examples for Ray, on a real one: answers of a plain loop; an artifact replaced under load loses nothing."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
import yaml

from exporter.verification.subprocesses import script
from runtime import load
from runtime.artifact.artifact_file import sha256
from runtime.commands import json_output
from runtime.errors import InputFileError
from tests.conftest import ROOT, run

EXAMPLES = ROOT / "examples/ray"
# Ray's own and those of what it brings; nothing in the examples can do anything about them.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
BAD = 61
TEXTS = [f"a {'very ' * (number % 17)}long sentence, number {number}" for number in range(90)]
TEXTS[BAD] = "far too long " * 300


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Ray on two processors, without dashboard; ended with the module."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray-") as folder:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Its processes find the examples as they do where a user starts them in their folder.
        patch.setenv("PYTHONPATH", f"{EXAMPLES}{os.pathsep}{ROOT}")
        patch.syspath_prepend(str(EXAMPLES))
        import ray

        # A short folder of its own: sockets lie in it, whose names the system limits.
        ray.init(
            num_cpus=2,
            object_store_memory=80 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",  # type: ignore[arg-type]
            _temp_dir=folder,
        )
        patch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
        yield ray
        ray.shutdown()


# ---- Data ----


@pytest.fixture(scope="module")
def classifier(tiny_folder: Callable[..., Path], minilm: Path, exported: Callable[..., Any]) -> Path:
    """A text classifier with a real tokenizer."""
    folder = tiny_folder("bert", "text-classification", num_labels=3, vocab_size=30522)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copyfile(minilm / name, folder / name)
    return Path(exported(folder, backend="plain").output)


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_job_gives_the_answers_of_a_loop(classifier: Path, kind: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    rows = [{"name": number, "text": text} for number, text in enumerate(TEXTS)]
    for part, some in enumerate((rows[:50], rows[50:])):
        if kind == "parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(some), source / f"{part}.parquet")
        else:
            (source / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    if kind == "parquet":
        done = run([*script(EXAMPLES / "batch_job.py"), classifier, source, target, "--batch-size", "32"])
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{target}: {len(TEXTS)} rows, 1 of them refused\n"
        found = pyarrow.parquet.read_table(target).to_pylist()
    else:
        # In this process, which spares the import of Ray.
        assert job(classifier, source, target) == (len(TEXTS), 1)
        found = [json.loads(line) for file in target.iterdir() for line in file.read_text().splitlines()]
    session = load(classifier)
    assert sorted(row["name"] for row in found) == list(range(len(TEXTS)))
    for row in found:
        text = TEXTS[row["name"]]
        assert row["text"] == text
        if row["name"] == BAD:
            assert row["error"].startswith("the text has 902 tokens") and row.get("label") is None
            continue
        (expected,) = session.text.classify([text])
        assert row["error"] is None and row["label"] == expected.label
        assert row["score"] == pytest.approx(expected.score, abs=1e-5)


def job(artifact: Path, source: Path, target: Path) -> Any:
    import batch_job  # type: ignore[import-not-found]  # from the folder of the example

    options = {"artifact": artifact, "input": source, "output": target, "workers": 1, "batch_size": 32}
    return batch_job.run(argparse.Namespace(**options, column="text"))


@pytest.mark.usefixtures("ray")
def test_what_a_job_refuses(classifier: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    with pytest.raises(InputFileError, match=r"in has no files; expected a folder of \.parquet, or of \.jsonl"):
        job(classifier, source, target)
    (source / "a.jsonl").write_text('{"words": "hello"}\n')
    with pytest.raises(InputFileError, match=r"in has the columns words; expected text"):
        job(classifier, source, target)
    done = run([*script(EXAMPLES / "batch_job.py"), tiny_artifact, source, target])
    assert done.returncode == 1 and "text input needs a tokenizer" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and not target.exists()


# ---- Serve: after the jobs, since its replicas hold both processors ----


class Service:
    """The application as `serve deploy serve.yaml` brings it up, on a free port."""

    def __init__(self) -> None:
        from ray import serve

        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.serve = serve
        self.config = yaml.safe_load((EXAMPLES / "serve.yaml").read_text())
        self.config["http_options"]["port"] = port
        self.url = f"http://127.0.0.1:{port}/"
        serve.start(http_options=self.config["http_options"], proxy_location="HeadOnly")

    def deploy(self, path: Path, sha256: str | None = None) -> None:
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ServeDeploySchema

        self.config["applications"][0]["deployments"][0]["user_config"] = {"artifact": str(path), "sha256": sha256}
        # What the command does; by itself it would cost seconds of imports.
        _get_global_client().deploy_apps(ServeDeploySchema(**self.config))  # type: ignore[union-attr]

    def wait_for(self, *wanted: str) -> str:
        """Until the deployment has one of these states; what it says of it."""
        for _ in range(1200):
            found = self.serve.status().applications.get("model")
            for deployment in found.deployments.values() if found else ():
                if deployment.status in wanted:
                    return str(deployment.message)
            time.sleep(0.1)
        raise AssertionError(self.serve.status())

    def post(self, body: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url, data), timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())


@pytest.fixture(scope="module")
def artifacts(tiny_folder: Callable[..., Path], exported: Callable[..., Any]) -> list[Path]:
    """The same inputs, other answers: three labels and four."""
    return [
        Path(exported(tiny_folder("bert", "text-classification", num_labels=labels), backend="plain").output)
        for labels in (3, 4)
    ]


@pytest.fixture(scope="module")
def service(ray: Any, artifacts: list[Path]) -> Iterator[Service]:
    assert ray.is_initialized()
    service = Service()
    service.deploy(artifacts[0], sha256(artifacts[0]))
    service.wait_for("HEALTHY")
    yield service
    service.serve.shutdown()


def ids(number: int) -> list[list[int]]:
    return [[(7 * number + place) % 290 + 1 for place in range(number % 23 + 1)]]


def test_answers_of_the_service_are_those_of_a_loop(service: Service, artifacts: list[Path]) -> None:
    session = load(artifacts[0])
    with ThreadPoolExecutor(8) as clients:
        found = list(clients.map(lambda number: service.post({"inputs": {"input_ids": ids(number)}}), range(40)))
    for number, (status, body) in enumerate(found):
        (expected,) = json_output.rows(session.manifest, session(input_ids=torch.tensor(ids(number))))
        (answer,) = body["answers"]
        assert status == 200 and answer["label"] == expected["label"]
        assert answer["scores"] == pytest.approx(expected["scores"], abs=1e-5)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"no json", 400, "the body cannot be read"),
        ({"words": "?"}, 400, "the body has not one of text and inputs"),
        ({"inputs": {"input_ids": [[10**6]]}}, 400, "input 'input_ids' holds 1000000; expected integers from 0 to 299"),
        ({"inputs": {"input_ids": [[1], [2, 3]]}}, 400, "'input_ids' is not a tensor"),
        ({"text": "this artifact has no tokenizer"}, 400, "text input needs a tokenizer"),
        ({"inputs": {"input_ids": [[1]]}, "deadline_ms": "soon"}, 400, "deadline_ms is 'soon'"),
        ({"inputs": {"input_ids": [[1]]}, "deadline_ms": 0}, 504, "the request waited"),
    ],
)
def test_refusals_by_status(service: Service, body: Any, status: int, message: str) -> None:
    found = service.post(body)
    assert found[0] == status and found[1]["error"].startswith(message)
    assert "\n" not in found[1]["error"]


def test_a_full_queue_is_refused_by_status(service: Service) -> None:
    """Ten times what the queues hold at once: each is answered or told that there is no room, and some are told."""
    rows = [[5] * 200] * 200
    with ThreadPoolExecutor(24) as clients:
        found = list(clients.map(lambda _: service.post({"inputs": {"input_ids": rows}}), range(24)))
    statuses = {status for status, _ in found}
    assert statuses == {200, 503}
    assert all(len(body["answers"]) == 200 for status, body in found if status == 200)
    assert all(body["error"].startswith("the queue holds") for status, body in found if status == 503)


def test_an_artifact_is_replaced_under_load(service: Service, artifacts: list[Path]) -> None:
    """No request is lost; each has the answer of the old artifact or of the new one, in the end of the new one alone.

    One that has another digest is refused in between; its status says so, and the service goes on with what it had.
    """
    old, new = artifacts
    known = [
        {
            number: next(json_output.rows(session.manifest, session(input_ids=torch.tensor(ids(number)))))
            for number in range(23)
        }
        for session in map(load, (old, new))
    ]
    found: list[tuple[int, int, Any]] = []
    stop, answered = threading.Event(), threading.Condition()

    def ask(first: int) -> None:
        number = first
        while not stop.is_set():
            number = (number + 1) % 23
            answer = service.post({"inputs": {"input_ids": ids(number)}})
            with answered:
                found.append((number, *answer))
                answered.notify_all()

    def more(count: int) -> int:
        """Wait for so many more answers; all so far."""
        with answered:
            wanted = len(found) + count
            assert answered.wait_for(lambda: len(found) >= wanted, 60)
            return len(found)

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask, 5 * client) for client in range(4)]
        try:
            service.deploy(new, sha256(old))
            while "has sha256" not in service.wait_for("UPDATING", "DEPLOY_FAILED"):
                time.sleep(0.05)
            during = more(20)
            service.deploy(new, sha256(new))
            service.wait_for("HEALTHY")
            time.sleep(0.5)
            more(40)
        finally:
            stop.set()
        for client in asking:
            client.result()
    labels = []
    for number, status, body in found:
        assert status == 200, body
        (answer,) = body["answers"]
        labels.append(len(answer["scores"]))
        assert answer["scores"] == pytest.approx(known[labels[-1] - 3][number]["scores"], abs=1e-5)
    assert during > 0 and set(labels[:during]) == {3} and set(labels[-40:]) == {4}
