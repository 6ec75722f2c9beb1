"""Read and write the text of `manifest.json`."""

from __future__ import annotations

import dataclasses
import json

from runtime.errors import ManifestDamagedError
from runtime.format.json_decoder import DecodeError, decode
from runtime.format.manifest import MANIFEST_FILE, Manifest
from runtime.format.validation import validate


def to_json(manifest: Manifest) -> str:
    """The text of `manifest.json`, the same for the same manifest."""
    return json.dumps(dataclasses.asdict(manifest), indent=1, allow_nan=False) + "\n"


def from_json(text: str | bytes, origin: str) -> Manifest:
    """Parse the text of `manifest.json`; `origin` names the file in errors.

    Raises:
        ManifestDamagedError: if it is not UTF-8 JSON, does not fit `Manifest`, or is not valid as a whole.
    """
    remedy = "export the model again, or copy the file again if it was damaged on the way"
    try:
        # Decoded here: from bytes, json.loads would also accept UTF-16 and UTF-32, which no other reader does.
        manifest = decode(Manifest, json.loads(text if isinstance(text, str) else text.decode("utf-8")))
    # RecursionError: thousands of nested brackets; json.loads has no depth limit of its own.
    except (DecodeError, ValueError, RecursionError) as error:
        raise ManifestDamagedError(f"damaged {MANIFEST_FILE} of {origin}: {error}", "", remedy) from error
    validate(manifest, origin)
    return manifest
