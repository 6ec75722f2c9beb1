"""Take an artifact apart, change its records, put it together again with digests that fit, as a forger would."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

MANIFEST = "extra/manifest.json"
GOLDEN = "extra/golden.safetensors"
HEAD = """class A(Module):
  __parameters__ = []
  __buffers__ = []
{attributes}  def forward(self: __torch__.A,
    input_ids: Tensor,
    attention_mask: Tensor,
    token_type_ids: Tensor) -> Tuple[Tensor]:
{body}"""
# What the base answers with: a row of three logits per text.
ANSWER = "y = torch.zeros([torch.size(input_ids, 0), 3], dtype=6)\nreturn (y,)"


class Forged:
    """The records of an artifact by name, in order, and its manifest.

    `records` may be changed at will; the manifest's list of digests is made when the file is written, so leave it out
    of `records`. Records are stored, except those named in `deflated`.
    """

    def __init__(self, base: bytes) -> None:
        with zipfile.ZipFile(io.BytesIO(base)) as archive:
            names = archive.namelist()
            self.top = names[0].split("/", 1)[0]
            self.records = {name.split("/", 1)[1]: archive.read(name) for name in names}
        self.manifest: dict[str, Any] = json.loads(self.records.pop(MANIFEST))
        self.deflated: set[str] = {name for name in self.records if name.startswith("code/") or name.endswith(".pkl")}

    def sealed_manifest(self) -> dict[str, Any]:
        """The manifest with the digests of the records as they are now."""
        parts = [{"name": n, "size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in self.records.items()]
        return self.manifest | {"parts": parts}

    def bytes(self, manifest_text: bytes | None = None) -> bytes:
        """The file; `manifest_text` stands in for the manifest, word for word."""
        text = json.dumps(self.sealed_manifest()).encode() if manifest_text is None else manifest_text
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in [*self.records.items(), (MANIFEST, text)]:
                method = zipfile.ZIP_DEFLATED if name in self.deflated else zipfile.ZIP_STORED
                archive.writestr(zipfile.ZipInfo(f"{self.top}/{name}"), content, method)
        return buffer.getvalue()


def forge(
    base: bytes,
    body: str = ANSWER,
    *,
    attributes: str = "",
    classes: str = "",
    code: str | bytes | None = None,
    data: bytes | None = None,
    constants: bytes = b"\x80\x02).",
    records: Mapping[str, bytes] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> bytes:
    """The base with code and weights of one's own; everything else, and what it says of itself, stays.

    Args:
        body: the lines of `forward`, which has to answer as the base does.
        attributes: lines that declare the attributes of the class of `forward`, `__torch__.A`.
        classes: the text of more classes, in front of it.
        code: the whole text of `code/__torch__.py`, in place of those three.
        data: `data.pkl`; left out: an object of that class without attributes.
        constants: `constants.pkl`.
        records: more records, mostly of tensors' numbers, or others in the place of those above.
        manifest: fields that are changed.
    """
    made = Forged(base)
    if code is None:
        lines = "".join(f"  {line}\n" for line in attributes.splitlines())
        code = classes + HEAD.format(attributes=lines, body="".join(f"    {line}\n" for line in body.splitlines()))
    made.records = {
        "data.pkl": b"\x80\x02c__torch__\nA\n)\x81}(ub." if data is None else data,
        "code/__torch__.py": code if isinstance(code, bytes) else code.encode(),
        "constants.pkl": constants,
        "version": b"3\n",
        "byteorder": b"little",
        **{name: content for name, content in made.records.items() if name.startswith("extra/")},
    } | dict(records or {})
    made.deflated = {name for name in made.records if name.startswith("code/")}
    made.manifest |= manifest or {}
    return made.bytes()
