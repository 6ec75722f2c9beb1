"""Text from elsewhere as it may be shown: file names, labels, tokens, values.

One rule for commands and error messages: a character that `str.isprintable` does not count as printable is shown as its
escape (`\\u202e`). That holds for control characters, which steer a terminal, for those that turn the direction of
text, for line and paragraph separators, for spaces other than the common one and for characters without width.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with an escape in place of each character that is not printable."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def shown(value: object, limit: int = 60) -> str:
    """A value as in source code, shortened to `limit` characters."""
    try:
        text = repr(value)
    except ValueError:
        # Python refuses to write whole numbers of thousands of digits.
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    return printable(text if len(text) <= limit else text[: limit - 3] + "...")
