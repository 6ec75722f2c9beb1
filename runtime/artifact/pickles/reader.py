"""Read the bytes of a pickle in order, never beyond the end."""

from __future__ import annotations

import struct
from typing import Any

from runtime.artifact.pickles.values import InvalidPickle

# Names of classes have some tens of characters.
_MAX_LINE = 1024


class Reader:
    """A pickle and the position of the next byte."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def at_end(self) -> bool:
        """Whether all bytes were read."""
        return self._place == len(self._data)

    def take(self, count: int) -> bytes:
        """The next `count` bytes.

        Raises:
            InvalidPickle: there are fewer. The other methods raise the same.
        """
        taken = self._data[self._place : self._place + count]
        if len(taken) != count:
            raise InvalidPickle("an end within a value")
        self._place += count
        return taken

    def number(self, form: str) -> Any:
        """A number in the format of `struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, count: int) -> str:
        """A string of `count` bytes in UTF-8."""
        try:
            return self.take(count).decode()
        except UnicodeDecodeError:
            raise InvalidPickle("a text that is not UTF-8") from None

    def line(self) -> str:
        """The characters up to the next line feed, which is skipped."""
        end = self._data.find(b"\n", self._place, self._place + _MAX_LINE)
        if end < 0:
            raise InvalidPickle("a name without an end")
        return self.take(end + 1 - self._place)[:-1].decode("ascii", "replace")
