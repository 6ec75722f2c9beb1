"""Read the settings files of a sentence-transformers folder, whole: no key is passed over in silence.

In: a file's name and its table of `exporter.loading.known_settings`. Out: the keys that are taken over. Refuses a key
that is not in the table, and a value that would change an answer and is not supported; `--ignore-setting KEY` leaves a
key out.
"""

from __future__ import annotations

from typing import Any

from exporter.loading.hub import Location, read_json
from exporter.loading.known_settings import Table
from runtime.errors import CheckpointError, RequestError


class Settings:
    """The settings of one model folder.

    Args:
        location: where the model is.
        ignored: keys that the user has left out, as if the folder did not have them.
    """

    def __init__(self, location: Location, ignored: tuple[str, ...] = ()) -> None:
        self.location = location
        self._ignored = ignored
        self._found: list[str] = []

    @property
    def ignored(self) -> tuple[str, ...]:
        """The keys that were left out, each with its place, for instance `1_Pooling/config.json: include_prompt`."""
        return tuple(dict.fromkeys(self._found))

    def read(self, name: str, table: Table) -> dict[str, Any] | None:
        """The values of a file that are taken over; None where the folder has no such file.

        Raises:
            CheckpointError: the file is damaged, or has a setting that is not supported.
        """
        content = read_json(self.location, name)
        return None if content is None else self.check(name, content, table)

    def check(self, place: str, content: Any, table: Table) -> dict[str, Any]:
        """The values of an object of such a file that are taken over.

        Args:
            place: the file, and where in it the object stands, for messages.
            content: the object.
            table: what becomes of its keys.

        Raises:
            CheckpointError: it is no object, or has a setting that is not supported.
        """
        if not isinstance(content, dict):
            raise CheckpointError(
                f"{place} of {self.location.id} holds {content!r}"[:200], "an object of settings", "copy the file again"
            )
        kept = {}
        for key, value in content.items():
            if key in self._ignored:
                self._found.append(f"{place}: {key}")
                continue
            row = table.get(key)
            if row is None:
                raise self.refusal(place, key, value, "this exporter does not know the setting")
            if row.honoured:
                kept[key] = value
            elif row.allowed is not None and not any(type(value) is type(one) and value == one for one in row.allowed):
                raise self.refusal(place, key, value, row.reason)
        return kept

    def refusal(self, place: str, key: str, value: Any, reason: str) -> CheckpointError:
        """The error for a setting that is not supported."""
        return CheckpointError(
            f"{place} of {self.location.id} sets {key} to {_shown(value)}: {reason}",
            "a setting that the file can keep to",
            f"give --ignore-setting {key} to export without it, if it does not change your answers",
        )

    def finish(self) -> None:
        """Say so where a key was to be ignored that no file of the folder has.

        Raises:
            RequestError: there is such a key.
        """
        for key in self._ignored:
            if not any(found.endswith(f": {key}") for found in self._found):
                raise RequestError(
                    f"ignore_setting names {key!r}, which no settings file of {self.location.id} has",
                    "a key of its modules.json or of the files that belong to it",
                )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
