"""Predictions for a folder of Parquet or JSON lines, by Ray Data on one machine or many.

    python batch_job.py model.pt INPUT OUTPUT [--workers N] [--batch-size N] [--column text]

INPUT is a folder (or file) of `.parquet`, or of JSON lines in `.jsonl` or `.json`, with a column of texts. OUTPUT
becomes a folder of files of the same kind, with the columns of the input, those of the prediction, and `error`: one
line that says why a row has no prediction, otherwise empty. A row that is refused does not affect the others. The exit
code is 1, with one line, if the artifact or the input cannot be read; 2 for a wrong command line.

Each of the N actors loads the artifact once. If a cluster is running (RAY_ADDRESS), the job is sent to it, and the
artifact must be at the same path on every machine; otherwise Ray is started on this machine and ends with the job.
"""

import argparse
import sys
from pathlib import Path

import pyarrow
import ray

import runtime
from runtime.artifact import artifact_file
from runtime.commands import json_output
from runtime.errors import ExportedModelError, InputFileError

METHODS = {
    "sentence-embedding": "embed",
    "feature-extraction": "embed",
    "text-classification": "classify",
    "token-classification": "tag",
    "fill-mask": "fill",
}


@ray.remote(num_cpus=0)
class Tally:
    """How many rows were answered or refused so far; a batch that Ray had to compute twice counts twice."""

    def __init__(self):
        self.rows = self.refused = 0

    def add(self, rows, refused):
        """What became of a batch."""
        self.rows += rows
        self.refused += refused

    def get(self):
        """Rows, and how many of them were refused."""
        return self.rows, self.refused


class Predictor:
    """One actor: the artifact, loaded once, and its answers for a batch at a time."""

    def __init__(self, path, digest, column, tally):
        self.session = runtime.load(path, threads=1, sha256=digest)
        self.column = column
        self.tally = tally
        self.method = METHODS.get(self.session.manifest.task, "numbers")

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """The batch with the columns of the answer, and `error`."""
        texts = batch.column(self.column).to_pylist()
        # Rows of similar lengths are computed together; each answer comes back in its row's place.
        found = getattr(self.session.text, self.method)(texts, errors="return")
        rows = [self.row(answer) for answer in found]
        names = sorted({name for row in rows for name in row} - {"error"})
        for name in names:
            batch = replaced(batch, name, pyarrow.array([row.get(name) for row in rows]))
        errors = pyarrow.array([row.get("error") for row in rows], pyarrow.string())
        self.tally.add.remote(len(rows), len(rows) - errors.null_count)
        return replaced(batch, "error", errors)

    def row(self, answer):
        """The columns of one answer."""
        if isinstance(answer, ExportedModelError):
            return {"error": str(answer)}
        return json_output.fields(self.session.manifest, answer)


def replaced(table, name, values):
    """A column at the end; one of that name makes way."""
    return (table.drop_columns([name]) if name in table.column_names else table).append_column(name, values)


def read(path):
    """The rows of a file or folder, and the kind of its files."""
    path = Path(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    kinds = {file.suffix for file in files if not file.name.startswith((".", "_"))}
    if kinds == {".parquet"}:
        return ray.data.read_parquet(str(path)), "parquet"
    if kinds and kinds <= {".jsonl", ".json"}:
        return ray.data.read_json([str(file) for file in files if file.suffix in kinds], lines=True), "json"
    found = f"files ending in {', '.join(sorted(kinds))}" if kinds else "no files"
    raise InputFileError(f"{path} has {found}", "a folder of .parquet, or of .jsonl")


def run(options):
    """The job; the number of rows, and of those that were refused."""
    if runtime.read_manifest(options.artifact).text is None:
        raise InputFileError(f"text input needs a tokenizer, which {options.artifact} does not have")
    rows, kind = read(options.input)
    if options.column not in rows.columns():
        raise InputFileError(f"{options.input} has the columns {', '.join(rows.columns())}", options.column)
    tally = Tally.remote()
    path = Path(options.artifact).resolve()
    answered = rows.map_batches(
        Predictor,
        # Whatever becomes of the file meanwhile, all actors load this one.
        fn_constructor_args=(str(path), artifact_file.sha256(path), options.column, tally),
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        batch_size=options.batch_size,
        batch_format="pyarrow",
        num_cpus=1,
    )
    output = str(Path(options.output).resolve())
    (answered.write_parquet if kind == "parquet" else answered.write_json)(output)
    return ray.get(tally.get.remote())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact")
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("--workers", type=int, default=1, help="actors, each with a processor of its own")
    parser.add_argument("--batch-size", type=int, default=256, help="rows that an actor takes at a time")
    parser.add_argument("--column", default="text")
    options = parser.parse_args()
    if not ray.is_initialized():
        ray.init(include_dashboard=False)
    try:
        rows, refused = run(options)
    except ExportedModelError as error:
        sys.exit(f"batch_job: {error}")
    print(f"{options.output}: {rows} rows, {refused} of them refused")


if __name__ == "__main__":
    main()
