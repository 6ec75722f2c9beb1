"""An artifact behind Ray Serve: replicas that load it once each, make batches, and take another one while serving.

    serve run serve_app:build artifact=/models/model.pt replicas=2        (in this folder)
    serve run serve.yaml                                                  (its user_config names the artifact)

A request is a POST with {"text": "…"} or {"inputs": {"input_ids": [[101, 2054, 102]]}}, and optionally "deadline_ms".
The reply is {"answers": […]}, one per row; or {"error": "…"}, one line, with the status 400 if the artifact does not
admit the input, 503 if the queue is full or there is no artifact, 504 after the deadline, 500 if the model failed.

Batches are made by `runtime.pool`, not by `@serve.batch`: it counts tokens instead of requests, batches similar
lengths, raises an error if its queue is full, and all threads of a replica share one copy of the weights.

To change the artifact, change `user_config`: Serve calls `reconfigure` in one replica after the other, and each keeps
answering with the old artifact until the new one is loaded. If the sha256 is given too, replicas that start later load
exactly this file or none, and a new file at the old path counts as another configuration.
"""

import asyncio
import json

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

import runtime
from runtime.artifact import artifact_file
from runtime.commands import json_output
from runtime.commands.tensor_file import to_tensor
from runtime.errors import (
    CheckFailedError,
    DeadlineError,
    ExportedModelError,
    InputError,
    InputFileError,
    PoolClosedError,
    PoolFullError,
)
from runtime.format import golden
from runtime.format.manifest import GOLDEN_FILE
from runtime.serving.pool import Pool
from runtime.verification.compare import run_cases

QUEUE = 256  # rows that wait in a replica
STATUS = {InputError: 400, PoolFullError: 503, PoolClosedError: 503, DeadlineError: 504, ExportedModelError: 500}


@serve.deployment(
    num_replicas=2,
    # More than the queue holds: it is the pool that refuses, with its own words.
    max_ongoing_requests=2 * QUEUE,
    ray_actor_options={"num_cpus": 1},
    health_check_period_s=10,
    health_check_timeout_s=30,
)
class Model:
    """A replica."""

    def __init__(self):
        self.pool = None
        self.case = None

    async def reconfigure(self, user_config):
        """Load `artifact` (and compare its `sha256`); answer with it what comes from then on.

        Options beside these: `threads` of a call, `workers` of a replica (calls at once), as for `runtime.pool.Pool`.
        """
        session, case = await asyncio.to_thread(load, user_config)
        # Serve takes a replica into service after this; one that is serving has not stopped meanwhile.
        if self.pool is None:
            self.pool = Pool(session, workers=user_config.get("workers", 1), capacity=QUEUE)
        else:
            self.pool.replace(session)
        self.case = case

    async def check_health(self):
        """Serve replaces a replica in which this raises: one whose answer is not the original model's."""
        if self.pool is not None:
            await asyncio.to_thread(check, self.pool.session, self.case)

    async def __call__(self, request: Request) -> JSONResponse:
        """One POST."""
        try:
            return JSONResponse({"answers": await self.answer(await request.body())})
        except ExportedModelError as error:
            status = next(status for kind, status in STATUS.items() if isinstance(error, kind))
            headers = {"Retry-After": "1"} if status == 503 else None
            return JSONResponse({"error": str(error)}, status, headers)

    async def answer(self, body):
        """Rows of answers for the body of a request."""
        if self.pool is None:
            raise PoolClosedError("this deployment has no artifact", "a user_config that names one")
        asked = read(body)
        used = []

        def inputs(session):
            # The session that will answer: another one may take its place while this waits.
            used.append(session)
            return inputs_of(asked, session)

        outputs = await self.pool.answer(inputs, deadline_s=asked.get("deadline_s"))
        return list(json_output.rows(used[0].manifest, outputs))

    def __del__(self):
        # Serve has waited for the requests that this replica had accepted.
        if self.pool is not None:
            self.pool.close()


def load(user_config):
    """A session, and the smallest of the cases that the artifact carries; None where it has none."""
    with artifact_file.open_archive(user_config["artifact"]) as archive:
        session = runtime.load(archive, threads=user_config.get("threads", 1), sha256=user_config.get("sha256"))
        stored = artifact_file.read_part(archive, GOLDEN_FILE)
    cases = golden.parse_cases(stored, archive.origin) if stored else []
    smallest = min(cases, key=lambda case: sum(tensor.numel() for tensor in case.inputs.values()), default=None)
    check(session, smallest)
    return session, smallest


def check(session, case):
    if case is None:
        session.warm_up()
        return
    for comparison in run_cases(session, [case], rounds=1):
        if not comparison.within(session.manifest.tolerance):
            raise CheckFailedError(
                f"output {comparison.output!r} of case {comparison.case} has max error {comparison.max_error:.1e}",
                f"at most {session.manifest.tolerance.max_error:g}",
            )


def read(body):
    """The request, its deadline in seconds."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputFileError(f"the body cannot be read: {error}", "JSON") from error
    if not isinstance(asked, dict) or ("text" in asked) == ("inputs" in asked):
        raise InputFileError("the body has not one of text and inputs", '{"text": "…"} or {"inputs": {…}}')
    if "deadline_ms" in asked:
        if not isinstance(asked["deadline_ms"], (int, float)):
            raise InputFileError(f"deadline_ms is {asked['deadline_ms']!r}", "a number of milliseconds")
        asked["deadline_s"] = asked["deadline_ms"] / 1000
    return asked


def inputs_of(asked, session):
    if "text" in asked:
        return session.text.encode([asked["text"]])
    if not isinstance(asked["inputs"], dict):
        raise InputFileError("inputs is no object", '{"input_ids": [[101, 2054, 102]]}')
    specs = {spec.name: spec for spec in session.manifest.inputs}
    return {name: to_tensor(name, rows, specs.get(name)) for name, rows in asked["inputs"].items()}


app = Model.bind()


def build(arguments):
    """The application for `serve run serve_app:build artifact=PATH [replicas=N] [workers=N] [threads=N]`."""
    path = arguments["artifact"]
    # Here, before any replica is touched: what cannot be served is refused, and the digest is that of this file.
    with artifact_file.open_archive(path) as archive:
        digest = artifact_file.verified_sha256(archive, artifact_file.read_manifest(archive))
    numbers = {name: int(arguments[name]) for name in ("workers", "threads") if name in arguments}
    replicas = {"num_replicas": int(arguments["replicas"])} if "replicas" in arguments else {}
    return Model.options(user_config={"artifact": path, "sha256": digest, **numbers}, **replicas).bind()
