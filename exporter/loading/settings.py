"""Read the settings files of a sentence-transformers folder completely: no key is ignored silently.

A key that `exporter.loading.known_settings` does not list is refused, and so is a value that would change an output and
is not supported. `--ignore-setting KEY` leaves a key out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporter.loading.hub import ModelFiles
from exporter.loading.known_settings import Table
from runtime.errors import CheckpointError, RequestError


class Settings:
    """The settings of one model folder.

    Args:
        files: the whole model folder.
        ignored: keys to leave out, as if the folder did not have them.
    """

    def __init__(self, files: ModelFiles, ignored: tuple[str, ...] = ()) -> None:
        self.files = files
        self._ignored = ignored
        self._found: list[str] = []

    @property
    def ignored(self) -> tuple[str, ...]:
        """The keys that were left out, each with its file, for instance `1_Pooling/config.json: include_prompt`."""
        return tuple(dict.fromkeys(self._found))

    def read(self, name: str, table: Table) -> dict[str, Any] | None:
        """The values of a file that are used; None if the folder has no such file.

        Raises:
            CheckpointError: the file is damaged, or has a setting that is not supported.
        """
        content = self.files.read_json(name)
        return None if content is None else self.check(name, content, table)

    def check(self, place: str, content: Any, table: Table) -> dict[str, Any]:
        """The values of an object in such a file that are used.

        Args:
            place: the file, and the object in it, for messages.
            content: the object.
            table: the known keys.

        Raises:
            CheckpointError: it is not an object, or has a setting that is not supported.
        """
        if not isinstance(content, dict):
            raise CheckpointError(
                f"{place} of {self.files.id} holds {content!r}"[:200], "an object of settings", "copy the file again"
            )
        kept = {}
        for key, value in content.items():
            if key in self._ignored:
                self._found.append(f"{place}: {key}")
                continue
            known = table.get(key)
            if known is None:
                raise self.refusal(place, key, value, "this exporter does not know the setting")
            if known.honoured:
                kept[key] = value
            elif known.allowed is not None and not _is_one_of(value, known.allowed):
                raise self.refusal(place, key, value, known.reason)
        return kept

    def refusal(self, place: str, key: str, value: Any, reason: str) -> CheckpointError:
        """The error for a setting that is not supported."""
        return CheckpointError(
            f"{place} of {self.files.id} sets {key} to {_shown(value)}: {reason}",
            "a setting that is supported",
            f"give --ignore-setting {key} to export without it, if that does not change your results",
        )

    def finish(self) -> None:
        """Check that each key to ignore was found in one of the folder's files.

        Raises:
            RequestError: one was not.
        """
        for key in self._ignored:
            if not any(found.endswith(f": {key}") for found in self._found):
                raise RequestError(
                    f"ignore_setting names {key!r}, which no settings file of {self.files.id} has",
                    "a key of its modules.json or of the files that belong to it",
                )


def _is_one_of(value: Any, allowed: Sequence[Any]) -> bool:
    """As `in`, except that True is not 1."""
    return any(type(value) is type(one) and value == one for one in allowed)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
