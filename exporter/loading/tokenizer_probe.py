"""Compare the tokenizer that the file carries with the folder's own one, on texts that reveal differences.

A tokenizer whose Python code or settings make other tokens than its tokenizer.json is refused, whichever setting it is.
"""

from __future__ import annotations

from typing import Any

from runtime.errors import CheckpointError
from runtime.format.manifest import TextInfo
from runtime.text import TextEncoder

_LONG = "The clerk wrote that the parser returns 42 values, and the account was closed in 2019. "
TEXTS = (
    "How do I reset my password?",
    "Zoë's CAFÉ in 東京 🙂 opens at 6:30, doesn't it?",
    "  two  spaces,\ta tab\nand a line ",
    "Москва — СТОЛИЦА России; naïve ﬁnance İstanbul",
    "def f(self, *args): return {'a': 1}  # مرحبا",
)


def expect_same_tokens(place: str, tokenizer: Any, content: bytes, info: TextInfo) -> None:
    """Check that both make the same tokens for texts of different length, case and script, alone and in pairs.

    Args:
        place: the model, for messages.
        tokenizer: of transformers.
        content: the file's tokenizer.json.
        info: its settings in the file.

    Raises:
        CheckpointError: they do not.
    """
    special = "".join(map(str, tokenizer.all_special_tokens[:6]))
    # Long enough to be truncated, unless the limit is too large to be tried.
    long = _LONG * (1 + min(info.max_length, 512) // 16)
    items: list[Any] = [*TEXTS, f"a {special} b", long, (TEXTS[0], TEXTS[1]), (long, TEXTS[3])]
    encoder = TextEncoder(content, info, ("input_ids", "token_type_ids"))
    made = encoder.tokens(items, truncate=True)
    for item, found in zip(items, made, strict=True):
        parts = item if isinstance(item, tuple) else (item,)
        try:
            own = tokenizer(*parts, truncation="longest_first", max_length=info.max_length)
        # A vocabulary without an unknown token raises a bare Exception for a word that it lacks, in both tokenizers.
        except Exception:  # noqa: BLE001
            continue
        types = own.get("token_type_ids")
        if getattr(found, "ids", None) == own["input_ids"] and types in (None, getattr(found, "type_ids", None)):
            continue
        raise CheckpointError(
            f"the tokenizer of {place}, {type(tokenizer).__name__}, makes other tokens than its tokenizer.json for "
            f"{' and '.join(part[:40] for part in parts)!r}",
            "a tokenizer that tokenizer.json describes completely",
            "remove the settings that cause it from tokenizer_config.json, or export from a folder without tokenizer "
            "files and make the tokens yourself",
        )
