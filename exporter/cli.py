"""The command `export-model`: its flags become an ExportRequest, which `export` runs.

Prints one line per stage and a summary, or the report as JSON. An error is one line on standard error with exit code 1;
2 is for a wrong command line, 130 for an interrupt. The only module that imports click.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from time import perf_counter
from typing import Any, NoReturn

import runtime
from exporter.config.model_aliases import SHORT_NAMES
from exporter.config.request import (
    BACKEND_CHOICES,
    FORM_CHOICES,
    INT4_GROUPS,
    MAX_LENGTH,
    MAX_SECONDS,
    MAX_SEED,
    MIN_EXAMPLE_SIZE,
    PADDING_CHOICES,
    TASK_CHOICES,
    TUNE_CHOICES,
    VERIFY_CHOICES,
    ExportRequest,
)
from exporter.packaging.report import StageEvent
from runtime.commands import console
from runtime.errors import RequestError
from runtime.printing import printable

# For a package that cannot be imported: what it is needed for, and how to install it.
MISSING = "to export", "pip install 'export-model[export]'"

try:
    import click
except ImportError as error:
    # Without click there is no command that could report it.
    sys.exit(f"export-model: {console.one_line(error, *MISSING)}")

_SIZE = click.IntRange(min=MIN_EXAMPLE_SIZE)


def _shapes(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[tuple[int, ...], ...]:
    """`1x128,8x128` → ((1, 128), (8, 128)); anything else is a usage error."""
    if text is None:
        return ()
    if not re.fullmatch(r"\d{1,9}(x\d{1,9})*(,\d{1,9}(x\d{1,9})*)*", text, re.ASCII):
        raise click.BadParameter(f"{text!r} is not a list of shapes such as 1x128,8x128", context, parameter)
    return tuple(tuple(map(int, shape.split("x"))) for shape in text.split(","))


class _Command(click.Command):
    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command; an OSError can only come from standard output, since the file has errors of its own."""
        try:
            return super().main(*arguments, **options)
        except OSError as error:
            console.silence_output()
            _fail(f"cannot write to standard output: {error.strerror or error}")


@click.command(cls=_Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(runtime.__version__, prog_name="export-model")
@click.argument("model")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=True), help="The file to write.")
@click.option(
    "--task",
    type=click.Choice(TASK_CHOICES),
    default="auto",
    show_default=True,
    help="What the model is for; auto reads its configuration.",
)
@click.option(
    "--fp32", "precision", flag_value="fp32", default="fp32", help="Weights and arithmetic in fp32 (the default)."
)
@click.option(
    "--bf16",
    "precision",
    flag_value="bf16",
    help="Weights and products in bf16: half the size, faster where the CPU has it.",
)
@click.option(
    "--int8",
    "precision",
    flag_value="int8",
    help="Products in int8, fitted to --calibration samples (none with --backend native): a quarter of the weights, "
    "the fastest, the least exact.",
)
@click.option(
    "--int4",
    "precision",
    flag_value="int4",
    help="For text-generation: weights in groups of 4-bit codes, head and embeddings in int8. --int8 rounds all "
    "weights to 8 bits there. Neither needs samples.",
)
@click.option(
    "--int4-group",
    type=click.Choice(tuple(map(str, INT4_GROUPS))),
    callback=lambda _context, _parameter, text: int(text),
    default=str(INT4_GROUPS[0]),
    show_default=True,
    help="Inputs of a linear that share a scale in int4: 32 is more exact, 128 smaller.",
)
@click.option(
    "--calibration",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Samples for --int8: lines of text (.txt), JSON lines of inputs (.jsonl), or tensors (.safetensors).",
)
@click.option(
    "--backend",
    type=click.Choice(BACKEND_CHOICES),
    default="auto",
    show_default=True,
    help="What makes it fast; auto takes the fastest of those that can be used here (see --tune), stock of those whose "
    "files need torch alone.",
)
@click.option(
    "--example-inputs",
    type=click.Choice(FORM_CHOICES),
    default="auto",
    show_default=True,
    help="Form of the traced example; auto takes dict from torch 2.0 on.",
)
@click.option(
    "--verify",
    type=click.Choice(VERIFY_CHOICES),
    default="quick",
    show_default=True,
    help="How thoroughly the written file is verified in a fresh process; the file records off.",
)
@click.option(
    "--tune",
    type=click.Choice(TUNE_CHOICES),
    default="short",
    show_default=True,
    help="Time the candidates against each other, and take the fastest that is correct: short compares backends, "
    "full attention forms too; off takes IPEX if it is installed.",
)
@click.option(
    "--padding",
    type=click.Choice(PADDING_CHOICES),
    default="drop",
    show_default=True,
    help="Whether padded positions of a batch are computed: drop skips them if the backend can (onednn).",
)
@click.option(
    "--tune-shapes",
    callback=_shapes,
    metavar="SHAPES",
    help="Shapes to time, such as 1x128,8x128.  [default: batches of 1 and 8, and one of 8 padded texts]",
)
@click.option("--batch-size", type=_SIZE, default=2, show_default=True, help="Batch of the traced example.")
@click.option(
    "--sequence-length", type=_SIZE, help="Length of the traced example.  [default: 128, or the model's longest]"
)
@click.option(
    "--image-sizes",
    callback=_shapes,
    metavar="SIZES",
    help="Heights and widths of images to verify, such as 224x224,750x1333; the first is traced.  "
    "[default: what the folder's image processor makes]",
)
@click.option("--max-image-size", type=_SIZE, help="Largest height and width of images to support; verified too.")
@click.option("--revision", help="Branch, tag or commit on the hub.")
@click.option("--cache-dir", type=click.Path(file_okay=False), help="Where models from the hub are kept.")
@click.option("--local-files-only", is_flag=True, help="Do not ask the hub; use its cache.")
@click.option(
    "--trust-remote-code", is_flag=True, help="Run Python code that the model brings along, with your rights."
)
@click.option(
    "--allow-pickle", is_flag=True, help="Accept pickled weights: loading them runs whatever code the file holds."
)
@click.option(
    "--allow-new-head",
    is_flag=True,
    help="Ship weights that the checkpoint lacks: they are random, and the outputs meaningless.",
)
@click.option(
    "--max-length",
    type=click.IntRange(MIN_EXAMPLE_SIZE, MAX_LENGTH),
    help="The longest text in tokens that is verified and admitted; 2048 by default, if the model admits it.",
)
@click.option(
    "--max-audio-seconds",
    type=click.FloatRange(1, MAX_SECONDS),
    help="The longest sound that is verified and admitted; 30 seconds by default.",
)
@click.option(
    "--ignore-setting",
    "ignore_settings",
    multiple=True,
    metavar="KEY",
    help="Leave out a setting of a sentence-transformers folder that would be refused; may be given several times.",
)
@click.option(
    "--base-model",
    metavar="MODEL",
    help="The folder or hub id that a PEFT adapter was trained for, in place of the one that it names.",
)
@click.option(
    "--gguf",
    metavar="FILE",
    help="A GGUF file in MODEL's folder: its weights, dequantised. Needs the package gguf.",
)
@click.option(
    "--random-weights", is_flag=True, help="Seeded random weights instead of trained ones, for benchmarks and tests."
)
@click.option(
    "--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True, help="Seed of the random weights."
)
@click.option(
    "--sign", type=click.Path(dir_okay=False), metavar="PEM", help="Sign the artifact with this Ed25519 private key."
)
@click.option(
    "--evaluate",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Labelled examples (CSV, JSON lines, CoNLL, SQuAD's JSON, queries with documents; for text-generation lines "
    "of text): report the metric of model and artifact.",
)
@click.option(
    "--max-metric-drop",
    type=float,
    metavar="POINTS",
    help="With --evaluate: write nothing if the artifact's metric is lower than the model's by more points of 100.",
)
@click.option(
    "--max-perplexity-rise",
    type=float,
    metavar="PERCENT",
    help="With --evaluate, for text-generation: write nothing if the artifact's perplexity is higher by more.",
)
@click.option(
    "--cpp-header",
    type=click.Path(dir_okay=True),
    metavar="FILE",
    help="Write a C++ header too: the artifact's inputs, outputs, labels and limits as types.",
)
@click.option(
    "--allow-operator",
    "allow_operators",
    multiple=True,
    metavar="NAME",
    help="Let the file call this operator too, such as aten::segment_reduce; who loads it must allow it as well. "
    "Repeatable.",
)
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--explain", is_flag=True, help="Print every choice and every warning of the tracer.")
@click.option("-v", "--verbose", is_flag=True, help="Show other packages' messages, and the traceback of an error.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def main(as_json: bool, explain: bool, verbose: bool, quiet: bool, **options: Any) -> None:
    """Export MODEL to a TorchScript file that runs without transformers.

    MODEL is a folder, a hub id, or a short name: {names}.
    """
    if not console.prepare() and not quiet:
        _fail("cannot write to standard output: it is closed")
    logging.basicConfig(format="%(message)s", level=logging.DEBUG if verbose else logging.WARNING)
    logging.getLogger("exporter").setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)
    interrupts = _Interrupts()
    # SIGTERM cleans up as Ctrl-C does.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupts)
    observe = _Lines(quiet or as_json, interrupts)
    try:
        request = ExportRequest(**options)
        observe(StageEvent("start"))
        start = perf_counter()
        # Imported here: torch and transformers take seconds, for which --help and usage errors need not wait.
        from exporter.pipeline import export

        observe(StageEvent("start", perf_counter() - start, "torch and transformers imported"))
        report = export(request, observe)
    except RequestError as error:
        observe.clear()
        raise click.UsageError(str(error)) from error
    except KeyboardInterrupt:
        observe.clear()
        _fail("interrupted; nothing was written", 130)
    except OSError:
        raise
    # Everything: an unforeseen error is reported in one line too.
    except Exception as error:
        observe.clear()
        if verbose:
            raise
        _fail(console.one_line(error, *MISSING))
    if as_json:
        _say(json.dumps(report.as_dict(), indent=1))
    elif not quiet:
        lines = report.summary() + (report.explained() if explain else [])
        _say("\n".join(map(printable, lines)))


def _say(text: str) -> None:
    """Print, as long as anyone reads: the file is what was asked for, with or without a reader of these lines."""
    try:
        click.echo(text)
    except BrokenPipeError:
        # What is left in the buffer goes there too, when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(line: str, code: int = 1) -> NoReturn:
    click.echo(f"export-model: {printable(line)}", err=True)
    sys.exit(code)


if main.help:
    main.help = main.help.format(names=", ".join(SHORT_NAMES))


class _Interrupts:
    """Raises Ctrl-C and SIGTERM where they arrive, and again between stages.

    Some packages catch everything around an optional import, and swallow the first one.
    """

    def __init__(self) -> None:
        self._arrived = False

    def __call__(self, _number: int, _frame: Any) -> None:
        self._arrived = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has arrived at any time."""
        if self._arrived:
            raise KeyboardInterrupt


class _Lines:
    """Prints one line per stage; a terminal also shows the running stage, until it ends."""

    def __init__(self, silent: bool, interrupts: _Interrupts) -> None:
        self._silent = silent
        self._interrupts = interrupts
        self._live = sys.stderr.isatty() and not silent

    def __call__(self, event: StageEvent) -> None:
        self._interrupts.check()
        if self._silent:
            return
        if event.seconds is None:
            if self._live:
                click.echo(f"\r{event.name:<10}   … {printable(event.detail)}\x1b[K", nl=False, err=True)
            return
        self.clear()
        _say(printable(f"{event.name:<10} {event.seconds:5.1f} s  {event.detail}"))

    def clear(self) -> None:
        """Remove the running stage's line."""
        if self._live:
            click.echo("\r\x1b[K", nl=False, err=True)


if __name__ == "__main__":
    main()
