"""Read the bytes of a pickle in order, never beyond the end."""

from __future__ import annotations

import struct
from typing import Any

from runtime.artifact.pickles.values import InvalidPickle

# Names of classes are some tens of letters.
_MAX_LINE = 1024


class Reader:
    """A place in a pickle."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def at_end(self) -> bool:
        """Whether every byte was taken."""
        return self._place == len(self._data)

    def take(self, count: int) -> bytes:
        """So many bytes.

        Raises:
            InvalidPickle: as all others here, if there are fewer.
        """
        taken = self._data[self._place : self._place + count]
        if len(taken) != count:
            raise InvalidPickle("an end within a value")
        self._place += count
        return taken

    def number(self, form: str) -> Any:
        """A number of the form that `struct` knows by this name."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, count: int) -> str:
        """A text of so many bytes."""
        try:
            return self.take(count).decode()
        except UnicodeDecodeError:
            raise InvalidPickle("a text that is not UTF-8") from None

    def line(self) -> str:
        """What stands before the next line feed, which is taken with it."""
        end = self._data.find(b"\n", self._place, self._place + _MAX_LINE)
        if end < 0:
            raise InvalidPickle("a name without an end")
        return self.take(end + 1 - self._place)[:-1].decode("ascii", "replace")
