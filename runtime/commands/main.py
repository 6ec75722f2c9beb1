"""The command `run-model`: inspect an artifact, check it on this machine, run it.

Results go to standard output as text or JSON. An error is one line on standard error, with exit code 1 (2 for a wrong
command line). Uses argparse: a worker needs no click.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Sequence

from runtime import __version__
from runtime.artifact import artifact_file
from runtime.commands import console
from runtime.format.manifest import Axis, GenerationInfo, Manifest, PairTemplate, TensorSpec, VerifiedCase, longest_text
from runtime.printing import printable, shown


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    if not console.prepare():
        return _failed("cannot write to standard output: it is closed")
    verbose = False
    try:
        try:
            options = _parser().parse_args(argv)
            verbose = options.verbose
            return int(options.run(options))
        finally:
            # Also after --help and --version.
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has closed the pipe; without this, Python would report it again at exit.
        console.silence_output()
        return 0
    except OSError as error:
        console.silence_output()
        return _failed(f"cannot write to standard output: {error.strerror or error}")
    except KeyboardInterrupt:
        return _failed("interrupted", 130)
    # Unexpected errors are reported in one line too.
    except Exception as error:  # noqa: BLE001
        if verbose:
            raise
        return _failed(console.one_line(error, "to run artifacts", "install it"))


def _failed(line: str, code: int = 1) -> int:
    print(f"run-model: {printable(line)}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run-model", description="Inspect, check and run a model that export-model wrote."
    )
    parser.add_argument("--version", action="version", version=f"run-model {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        sub.add_argument("file", metavar="FILE", help="the artifact")
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.add_argument(
            "--verify-key",
            metavar="PEM",
            help="public key: refuse a file that is not signed with its private key",
        )
        sub.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=run)
        return sub

    def loading(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--threads", type=_positive, metavar="N", help="torch threads (default: torch's own choice)")
        sub.add_argument(
            "--allow-operator",
            action="append",
            default=[],
            metavar="NAME",
            help="let the file call this operator too, as namespace::name; only for files you trust; repeatable",
        )

    inspect = command("inspect", _inspect, "Print the artifact's description; loads no torch.")
    inspect.add_argument("--verify", action="store_true", help="compare all parts with their digests; print sha256")
    check = command(
        "check", _check, "Run the stored golden cases on this machine; exit code 1 if an output is out of tolerance."
    )
    loading(check)
    predict = command("predict", _predict, "Run the model on text or tensors and print one JSON object per row.")
    loading(predict)
    source = predict.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", action="append", metavar="TEXT", help="a text; may be given several times")
    source.add_argument("--texts", metavar="FILE", help="a file with one text per line, or - for standard input")
    source.add_argument(
        "--jsonl",
        metavar="FILE",
        help="a file with one JSON object per line: text, question and context, or query and documents; or -",
    )
    source.add_argument("--inputs", metavar="FILE", help="tensors by name: .json, .safetensors or .npz")
    source.add_argument("--image", action="append", metavar="FILE", help="a picture; may be given several times")
    source.add_argument("--audio", action="append", metavar="WAV", help="a wav file; may be given several times")
    predict.add_argument("--threshold", type=_share, metavar="N", help="objects with a larger score are printed")
    predict.add_argument(
        "--point",
        type=_place,
        action="append",
        dest="points",
        metavar="X,Y",
        help="a point of the object to mark; repeatable",
    )
    predict.add_argument("--box", type=_box, metavar="LEFT,TOP,RIGHT,BOTTOM", help="a box around the object to mark")
    predict.add_argument(
        "--timestamps", choices=("word", "char"), help="when each word, or character, of a transcript is heard"
    )
    predict.add_argument(
        "--truncate", action="store_true", help="cut texts and sounds that are longer than the model admits"
    )
    predict.add_argument("--prompt-name", metavar="NAME", help="which of the model's prompts to put before each text")
    predict.add_argument(
        "--dimensions", type=_positive, metavar="N", help="how many numbers of each vector to keep, from its beginning"
    )
    predict.add_argument("--stride", type=_whole, metavar="N", help="tokens shared by the windows of a long text")
    predict.add_argument(
        "--top-k", type=_positive, metavar="N", help="how many labels, documents, or candidates for a mask"
    )
    predict.add_argument(
        "--aggregation",
        metavar="NAME",
        help="which tokens become one tag: none, simple (default), first, average or max",
    )
    generate = command(
        "generate", _generate, "Write a prompt on, or answer a message; of a file, print one JSON object per line."
    )
    loading(generate)
    source = generate.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", metavar="TEXT", help="a text to write on")
    source.add_argument("--chat", metavar="TEXT", help="a user's message, which goes through the model's chat template")
    source.add_argument(
        "--jsonl", metavar="FILE", help="a file with one JSON object per line: prompt, or messages; or -"
    )
    generate.add_argument("--system", metavar="TEXT", help="with --chat: the system's message before it")
    generate.add_argument("--max-new-tokens", type=_positive, metavar="N", help="at most so many tokens (default: 256)")
    generate.add_argument("--temperature", type=float, metavar="N", help="0: always the likeliest token")
    generate.add_argument("--top-k", type=_whole, metavar="N", help="how many tokens to choose from; 0: all")
    generate.add_argument("--top-p", type=float, metavar="N", help="the share of probability to choose from")
    generate.add_argument("--min-p", type=float, metavar="N", help="the least share of the largest probability")
    generate.add_argument("--repetition-penalty", type=float, metavar="N", help="for tokens that were there before")
    generate.add_argument("--seed", type=_whole, metavar="N", help="of the draws, for texts that can be repeated")
    generate.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends the text; repeatable")
    generate.add_argument("--num-beams", type=_positive, metavar="N", help="the best of so many beams")
    generate.add_argument("--logprobs", action="store_true", help="how probable each token was, as JSON")
    return parser


def _generate(options: argparse.Namespace) -> int:
    from runtime.commands.generate import generate

    return generate(options)


def _inspect(options: argparse.Namespace) -> int:
    with artifact_file.open_archive(options.file) as archive:
        manifest = artifact_file.read_manifest(archive)
        if options.verify_key is not None:
            artifact_file.check_signature(archive, options.verify_key)
        digest = artifact_file.verified_sha256(archive, manifest) if options.verify or options.verify_key else None
    if options.json:
        print(json.dumps(dataclasses.asdict(manifest) | ({"sha256": digest} if digest else {}), indent=1))
    else:
        lines = [f"sha256    {digest}, all {len(manifest.parts)} parts as sealed"] if digest else []
        print("\n".join(map(printable, _describe(options.file, manifest) + lines)))
    return 0


def _check(options: argparse.Namespace) -> int:
    from runtime.verification.worker import check_golden

    manifest, comparisons = check_golden(options.file, options.threads, options.verify_key, options.allow_operator)
    tolerance = manifest.tolerance
    passed = all(one.within(tolerance) for one in comparisons)
    if options.json:
        rows = [dataclasses.asdict(one) | {"within": one.within(tolerance)} for one in comparisons]
        print(json.dumps({"passed": passed, "tolerance": dataclasses.asdict(tolerance), "cases": rows}, indent=1))
        return 0 if passed else 1
    recorded = {(case.case, case.output): case for case in manifest.verified}
    columns = f"{'max error':>9} {'recorded':>9} {'rms error':>10} {'recorded':>9} {'calls':>6}"
    print(f"{'case':<16} {'output':<18} {columns}")
    for one in comparisons:
        then = recorded.get((one.case, one.output))
        known = (f"{then.max_error:.2e}", f"{then.rms_error:.2e}") if then else ("", "")
        line = (
            f"{one.case:<16} {one.output:<18} {one.max_error:>9.2e} {known[0]:>9} {one.rms_error:>10.2e} "
            f"{known[1]:>9} {one.calls:>6}{'' if one.within(tolerance) else '  OFF'}"
        )
        print(printable(line))
    print(f"tolerance: max error {tolerance.max_error:g}, rms error {tolerance.rms_error:g}, relative to eager fp32")
    print("passed" if passed else "FAILED: the outputs on this machine differ from the model's")
    return 0 if passed else 1


def _predict(options: argparse.Namespace) -> int:
    from runtime.commands.predict import predict

    return predict(options)


def _describe(path: str, manifest: Manifest) -> list[str]:
    model, requires = manifest.model, manifest.requires
    weights = "seeded random weights" if model.random_weights else f"weights sha256 {model.weights_sha256[:16]}…"
    torch_rule = "exactly this minor release" if requires.torch_rule == "same-minor" else "or newer"
    needs = [f"torch {requires.torch} ({torch_rule})"]
    needs += [f"intel-extension-for-pytorch {requires.ipex}"] if requires.ipex else []
    needs += [] if requires.native is None else [f"this project's own operators, version {requires.native}"]
    needs += [f"processor with {', '.join(requires.cpu_flags)}"] if requires.cpu_flags else []
    lines = [
        f"{path}: {manifest.task}, {manifest.precision}, {manifest.backend} backend, format {manifest.format_version}",
        f"model     {model.id}, {model.architecture}, {model.parameters / 1e6:.1f} M parameters, {weights}",
        f"needs     {'; '.join(needs)}",
    ]
    lines += _table("inputs", [_describe_tensor(spec) for spec in manifest.inputs])
    lines += _table("outputs", [_describe_tensor(spec) for spec in manifest.outputs])
    if manifest.labels:
        shown = ", ".join(manifest.labels[:8]) + (f", … ({len(manifest.labels)})" if len(manifest.labels) > 8 else "")
        lines.append(f"labels    {shown}")
    lines += [f"ignored   {setting}" for setting in manifest.model.ignored_settings]
    if manifest.text:
        lines.append(f"text      tokenizer inside, at most {longest_text(manifest.text, manifest.sequence)} tokens")
        template = manifest.text.pair_template
        lines += _table("pairs", [] if template is None else _describe_template(template))
    if manifest.generation:
        lines += _table("generates", _describe_generation(manifest.generation))
    if manifest.preprocessing:
        made = f"preprocessed in the file to {', '.join(manifest.preprocessing.inputs)}"
        lines.append(f"takes     {_describe_data(manifest)}, {made}")
    lines += _table("prompts", _describe_prompts(manifest))
    if manifest.embedding:
        length = ", vectors of length 1" if manifest.embedding.normalized else ""
        lines.append(f"compared  by {manifest.embedding.similarity}{length}")
    fusions = [f"{fusion.count:>3} x {fusion.kind} ({fusion.operator})" for fusion in manifest.fusions]
    lines += _table("fusions", fusions or ["none"])
    if manifest.padded_output == "repeated":
        lines.append("padding   not computed; at padded places an output repeats its row's last real token")
    lines += _table("timed", _timings(manifest))
    verified = [_describe_case(case) for case in manifest.verified]
    lines += _table("verified", verified or ["NOT verified: exported with --verify off"])
    lines += _table("accuracy", [accuracy.summary for accuracy in manifest.accuracy])
    tolerance = manifest.tolerance
    lines.append(
        f"tolerance max {tolerance.max_error:g}, rms {tolerance.rms_error:g}, relative to eager fp32 of the original"
    )
    warmups = ", ".join(_shape(shape) for shape in manifest.execution.warmup_shapes)
    calls = manifest.execution.warmup_calls
    lines.append(f"warm-up   {calls} call{'' if calls == 1 else 's'} at {warmups}")
    return lines


def _describe_data(manifest: Manifest) -> str:
    rules = manifest.preprocessing
    if rules is None or rules.rate is None:
        return "pictures"
    (axis,) = rules.axes
    most = "" if axis.maximum is None else f" to {axis.maximum / rules.rate:.2f}"
    return f"sounds at {rules.rate} samples per second, from {axis.minimum / rules.rate:.2f}{most} s"


def _describe_generation(found: GenerationInfo) -> list[str]:
    size = sum(one.heads * one.width * (4 if one.dtype == "float32" else 2) for one in found.caches)
    chat = "with" if found.chat is not None else "without"
    lines = [
        f"rows of at most {found.longest} tokens, {chat} a chat template, "
        f"until {', '.join(map(str, found.stop_ids)) or 'no token'}",
        f"cache {found.caches[0].dtype}, {size / 1024:.1f} KB per token, {len(found.caches) // 2} layers",
    ]
    if found.max_error is not None:
        lines.append(f"verified in pieces, alone and together: max {found.max_error:.2e}, rms {found.rms_error:.2e}")
    for one in found.greedy:
        apart = "" if one.margin is None else f", then the original's logits are {one.margin:.1e} apart"
        lines.append(f"greedy tokens behind {one.prompt}: {one.equal} of {one.tokens} as transformers'{apart}")
    return lines


def _describe_template(template: PairTemplate) -> list[str]:
    return [
        f"before the query: {shown(template.before)}",
        f"before the document: {shown(template.between)}",
        f"behind it: {shown(template.after)}",
    ]


def _describe_prompts(manifest: Manifest) -> list[str]:
    sides = manifest.late_interaction
    prompts = manifest.embedding.prompts if manifest.embedding else (sides.prompts or {}) if sides else {}
    named = [f"{name}: {shown(text)}" for name, text in prompts.items() if text]
    default = manifest.text.rules.prompt if manifest.text is not None and manifest.text.rules is not None else ""
    return named + ([f"by default: {shown(default)}"] if default else [])


def _describe_case(case: VerifiedCase) -> str:
    padded = " padded" if case.padded else ""
    text = f"{_shape(case.shape)}{padded:<7} {case.output}: max {case.max_error:.2e}, rms {case.rms_error:.2e}, "
    text += f"absolute {case.max_abs_error:.2e}"
    if case.argmax_mismatches is not None:
        text += f", argmax differs in {case.argmax_mismatches} of {case.rows} rows"
    return text


def _timings(manifest: Manifest) -> list[str]:
    """One row per candidate: what the exporter measured when it chose."""
    candidates = dict.fromkeys((timing.candidate, timing.chosen) for timing in manifest.timings)
    return [
        f"{candidate}: "
        + ", ".join(
            f"{timing.milliseconds:.2f} ms at {_shape(timing.shape)}{' padded' * timing.padded}"
            for timing in manifest.timings
            if timing.candidate == candidate
        )
        + (f", {manifest.timings[0].threads} threads (this file)" if chosen else "")
        for candidate, chosen in candidates
    ]


def _describe_tensor(spec: TensorSpec) -> str:
    text = f"{spec.name}: {spec.dtype} [{', '.join(map(_describe_axis, spec.axes))}]"
    if spec.values:
        text += f", values {spec.values.minimum} to {spec.values.maximum}"
    text += (
        f", the id {spec.required_token_id} in every row, equally often" if spec.required_token_id is not None else ""
    )
    return text + (f", {spec.fill} if left out" if spec.fill is not None else "")


def _describe_axis(axis: Axis) -> str:
    if axis.maximum == axis.minimum:
        return f"{axis.name}={axis.minimum}"
    step = f" in steps of {axis.multiple}" if axis.multiple > 1 else ""
    return f"{axis.name} {axis.minimum}..{axis.maximum or ''}{step}"


def _shape(shape: dict[str, int]) -> str:
    return "x".join(str(size) for size in shape.values())


def _table(title: str, rows: Sequence[str]) -> list[str]:
    return [f"{title if i == 0 else '':<9} {row}" for i, row in enumerate(rows)]


def _positive(text: str) -> int:
    return _whole(text, 1)


def _whole(text: str, least: int = 0) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least}")
    return int(text)


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")
    return number


def _place(text: str) -> list[float]:
    return _numbers(text, 2)


def _box(text: str) -> list[float]:
    return _numbers(text, 4)


def _numbers(text: str, count: int) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count or not all(map(math.isfinite, found)):
        raise argparse.ArgumentTypeError(f"{text} is not {count} numbers with commas between them")
    return found


if __name__ == "__main__":
    sys.exit(main())
