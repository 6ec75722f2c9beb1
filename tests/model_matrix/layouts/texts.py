"""The texts, pairs and contexts that layouts are compared on, and the words that their vocabularies are made of."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent.parent

LONG = "The clerk wrote that every account was closed in March, and nobody had asked the bank for the reason. " * 16
# Of different length, case and script, one longer than many models admit.
TEXTS = (
    "How do I open an account?",
    "Hi",
    "Zoë's café in 東京 🙂 opens at 6:30, doesn't it?",
    "Der Zug nach München fährt um 8:15 ab; the TRAIN is late — naïve?",
    LONG,
    "return self._items.get(name, None)  # Москва",
)
QUERY = "Which bank closed the account in March?"
DOCUMENTS = (*TEXTS[:4], "The bank in Paris closed the account in March 2019.", LONG, TEXTS[5])
PREMISES = (
    ("Angela Merkel opened a bank in Paris.", "A bank was opened."),
    ("The train to München is late.", "The train is on time."),
    (LONG, "Every account was closed."),
    ("Hi", "Nobody asked the reason."),
)
CONTEXTS = (
    ("Who opened the bank?", "Angela Merkel opened a bank in Paris. The clerk closed it in March 2019."),
    ("When was it closed?", LONG + "It was closed in 2019 by Zoë, in 東京."),
    ("Where is the café?", "Hi"),
)
NAMES = (
    "Angela Merkel and Zoë opened a bank in Paris, not in New York.",
    "Hi",
    "My name is Wolfgang Müller-Schmidt and I live in 東京; call 030/1234567.",
    "EU rejects German call to boycott British lamb",
)

_MORE = """
How do I open an account? Which bank closed the account in March? Interest rates rose by half a percent.
Der Zug nach München fährt um acht Uhr ab. Le café près de la gare est fermé. ¿Dónde está la estación?
東京 は 高い 。 北京 大学 在 海淀区 。 Москва столица России. Zoë naïve façade.
query: passage: search_query: search_document: clustering: classification: title: none text: task: search result
Represent this sentence for searching relevant passages: Instruct: Given a web search query, retrieve relevant passages
that answer the query Query: Document: yes no not maybe entailment neutral contradiction positive negative
Angela Merkel Wolfgang Müller live in Paris, New York, Berlin. This example is about politics, travel, cooking.
"""


@lru_cache(maxsize=1)
def words() -> tuple[str, ...]:
    """Words, the most frequent first; the same on every machine."""
    text = (_MORE + " ".join([*TEXTS, *(part for pair in (*PREMISES, *CONTEXTS) for part in pair), *NAMES])) * 3
    text += (_ROOT / "LICENSE").read_text()
    counts = Counter(re.findall(r"\w+|[^\w\s]", text))
    return tuple(sorted(counts, key=lambda word: (-counts[word], word)))


def characters() -> list[str]:
    """Every printable character of ASCII, and those of the words, in order."""
    return sorted({chr(code) for code in range(33, 127)} | {sign for word in words() for sign in word})
