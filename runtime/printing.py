"""Make text from elsewhere (file names, labels, tokens, values) safe to print.

Commands and error messages follow one rule: each character that `str.isprintable` rejects is replaced by its escape
(`\\u202e`). This covers control characters, which steer a terminal, characters that change the direction of text, line
and paragraph separators, spaces other than the common one, and characters without width.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with each character that is not printable replaced by its escape."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def shown(value: object, limit: int = 60) -> str:
    """The value's `repr`, printable, shortened to `limit` characters."""
    try:
        text = repr(value)
    except ValueError:
        # Python does not convert integers of thousands of digits.
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    return printable(text if len(text) <= limit else text[: limit - 3] + "...")
