"""Write one artifact's contract as a C++ header: what `export-model --cpp-header FILE` makes.

A program that includes it names inputs and outputs as members: a misspelled name, or an artifact with other inputs,
does not compile. At run time it refuses any artifact but the one that the header was written for. Names that C++ does
not allow are changed, and strings are written as bytes.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterator

from runtime.format.manifest import Axis, Manifest, TensorSpec

# Keywords of C++17 and 20, and the names that the header itself uses in the same scope.
_KEYWORDS = (
    "and asm auto bool break case catch char class concept const continue decltype default delete do double else enum "
    "explicit export extern false float for friend goto if inline int long mutable namespace new not nullptr operator "
    "or private protected public register requires return short signed sizeof static struct switch template this "
    "throw true try typedef typename union unsigned using virtual void volatile while xor std at main "
    "tensors exported_model"
)
_TAKEN = frozenset(_KEYWORDS.split())


def cpp_header(manifest: Manifest, sha256: str, name: str) -> str:
    """The header's text.

    Args:
        manifest: the file's.
        sha256: the whole file's digest, in hexadecimal.
        name: of the namespace; characters that it cannot have are replaced.
    """
    return "\n".join(_lines(manifest, sha256, identifier(name))) + "\n"


def identifier(text: str) -> str:
    """The nearest name that C++ allows."""
    name = re.sub(r"_+", "_", re.sub(r"\W", "_", text, flags=re.ASCII)).strip("_")
    if not name or name[0].isdigit():
        name = f"model_{name}".rstrip("_")
    return f"{name}_" if name in _TAKEN else name


def _lines(manifest: Manifest, sha256: str, namespace: str) -> Iterator[str]:
    what = f"{manifest.task}, {manifest.precision}, {manifest.backend} backend"
    yield f"// The contract of one artifact: {what}."
    yield f"// Written by export-model {manifest.exporter_version}; write it anew with the artifact, do not edit it."
    yield "#pragma once"
    yield ""
    yield "#include <array>"
    yield "#include <cstdint>"
    yield "#include <string>"
    yield "#include <string_view>"
    yield ""
    yield "#include <exported_model/session.h>"
    yield ""
    yield f"namespace {namespace} {{"
    yield ""
    yield "// SHA-256 of the whole file, and of all its parts combined by exclusive or, which `Model` compares."
    for constant, value in (("ArtifactSha256", sha256), ("Fingerprint", _fingerprint(manifest))):
        yield f'constexpr std::string_view k{constant} = "{value}";'
    for constant, value in (("Task", manifest.task), ("Precision", manifest.precision), ("Backend", manifest.backend)):
        yield f"constexpr std::string_view k{constant} = {_string(value)};"
    yield ""
    yield from _constants(manifest)
    yield f"constexpr std::array<std::string_view, {len(manifest.labels)}> kLabels = {{"
    yield from (f"    {_string(label)}," for label in manifest.labels)
    yield "};"
    yield ""
    yield from _inputs(manifest.inputs)
    yield ""
    yield "struct Outputs {"
    yield from (f"  at::Tensor {identifier(spec.name)};  // {_described(spec)}" for spec in manifest.outputs)
    yield "};"
    yield ""
    yield from _model(manifest.outputs)
    yield ""
    yield f"}}  // namespace {namespace}"


def _fingerprint(manifest: Manifest) -> str:
    """What `exported_model::fingerprint` computes from the manifest."""
    return f"{functools.reduce(operator.xor, (int(part.sha256, 16) for part in manifest.parts), 0):064x}"


def _constants(manifest: Manifest) -> Iterator[str]:
    axes: dict[str, Axis] = {}
    for spec in (*manifest.inputs, *manifest.outputs):
        for axis in spec.axes:
            axes.setdefault(axis.name, axis)
    yield "// Sizes along the axes."
    for axis in axes.values():
        if axis.minimum == axis.maximum:
            yield f"constexpr std::int64_t k{_camel(axis.name)} = {axis.minimum};"
            continue
        yield f"constexpr std::int64_t kMin{_camel(axis.name)} = {axis.minimum};"
        if axis.maximum is not None:
            yield f"constexpr std::int64_t kMax{_camel(axis.name)} = {axis.maximum};"
        if axis.multiple != 1:
            yield f"constexpr std::int64_t kMultipleOf{_camel(axis.name)} = {axis.multiple};"
    ranges = [(spec.name, spec.values) for spec in manifest.inputs if spec.values is not None]
    if ranges:
        yield "// The integers that inputs may hold."
    for name, values in ranges:
        yield f"constexpr std::int64_t kMinValueOf{_camel(name)} = {values.minimum};"
        yield f"constexpr std::int64_t kMaxValueOf{_camel(name)} = {values.maximum};"
    if manifest.text is not None:
        yield f"constexpr std::int64_t kPadId = {manifest.text.pad_id};"


def _inputs(specs: tuple[TensorSpec, ...]) -> Iterator[str]:
    yield "struct Inputs {"
    for spec in specs:
        left_out = "" if spec.fill is None else f"; left undefined, it is filled with {spec.fill}"
        yield f"  at::Tensor {identifier(spec.name)};  // {_described(spec)}{left_out}"
    yield ""
    yield "  exported_model::Tensors tensors() const {"
    pairs = ", ".join(f"{{{_string(spec.name)}, {identifier(spec.name)}}}" for spec in specs)
    yield f"    return {{{pairs}}};"
    yield "  }"
    yield "};"


def _model(outputs: tuple[TensorSpec, ...]) -> Iterator[str]:
    members = ", ".join(f"named.at({_string(spec.name)})" for spec in outputs)
    yield "// The artifact, loaded. Safe to call from many threads."
    yield "class Model {"
    yield " public:"
    yield "  // Throws exported_model::ContractError for another artifact, else as exported_model::Session does."
    yield "  explicit Model(const std::string& path, const exported_model::Options& options = {})"
    yield "      : session_(path, options, [&path](const exported_model::Manifest& manifest) {"
    yield "          exported_model::check_contract(manifest, path, kFingerprint);"
    yield "        }) {}"
    yield ""
    yield "  Outputs run(const Inputs& inputs) const {"
    yield "    const auto named = session_.run(inputs.tensors());"
    yield f"    return {{{members}}};"
    yield "  }"
    yield ""
    yield "  const exported_model::Session& session() const { return session_; }"
    yield ""
    yield " private:"
    yield "  exported_model::Session session_;"
    yield "};"


def _described(spec: TensorSpec) -> str:
    axes = ", ".join(
        axis.name
        if axis.maximum is None
        else f"{axis.name}={axis.minimum}"
        if axis.minimum == axis.maximum
        else f"{axis.name} {axis.minimum}..{axis.maximum}"
        for axis in spec.axes
    )
    values = "" if spec.values is None else f", {spec.values.minimum} to {spec.values.maximum}"
    return f"{spec.dtype} [{axes}]{values}"


def _camel(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in identifier(name).split("_"))


def _string(text: str) -> str:
    """A C++ literal of the text's UTF-8 bytes; all but plain characters are octal escapes, whose length is fixed."""
    plain = re.compile(r"[A-Za-z0-9 .,;:_+*/()\[\]<>=#@&|~^!$%{}'-]")
    return '"' + "".join(chr(b) if plain.match(chr(b)) and b < 128 else f"\\{b:03o}" for b in text.encode()) + '"'
