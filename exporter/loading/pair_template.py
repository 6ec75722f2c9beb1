"""The chat template of a reranker, as fixed text around the query and the document.

A template is a program. It is run on a few pairs, and refused unless it puts query and document, in this order, between
texts that are the same for all pairs.
"""

from __future__ import annotations

from typing import Any

from exporter.loading.hub import ModelFiles
from exporter.loading.text_settings import ChatSettings
from runtime.errors import CheckpointError, ExportedModelError
from runtime.format.manifest import PairTemplate

# Found again in a rendered template; neither has characters that a template would escape.
_MARKS = ("Qu3ryMark", "D0cumentMark")
_PROBES = (
    ("alpha", "bravo"),
    (" two  spaces ", "\n\ta line\n\n"),
    ("{{ x }} {% y %}", "<b>'single' & \"double\"</b> \\n"),
    ("Москва — 東京 🙂", "<|im_end|></s>" + " long" * 200),
)
# The library finds the template's last tokens by two pairs of texts that have no last token in common.
_FILLERS = ("0", "1 2 3 4")


def read_pair_template(files: ModelFiles, tokenizer: Any, chat: ChatSettings) -> PairTemplate | None:
    """The template; None if the tokenizer has none for pairs and `chat` does not require it.

    Args:
        files: the model's.
        tokenizer: of transformers; None if the model has none.
        chat: how pairs go through it.

    Raises:
        CheckpointError: it has no place for query and document, or is not the same around all of them.
    """
    problem = ""
    for form in ("flat", "structured") if chat.form is None else (chat.form,):
        found = _fixed(_Rendering(files, tokenizer, chat, form))
        if isinstance(found, PairTemplate):
            return found
        problem = problem or found
    if not chat.required:
        return None
    raise CheckpointError(
        f"the chat template of {files.id} does not say how a query and a document become one text: {problem}"[:400],
        "a chat template that puts the messages of the roles query and document between fixed texts",
        "save the folder with such a template (chat_template.jinja)",
    )


class _Rendering:
    """A chat template, for pairs in one form of messages."""

    def __init__(self, files: ModelFiles, tokenizer: Any, chat: ChatSettings, form: str) -> None:
        self._files, self._chat, self._form = files, chat, form
        self.tokenizer = tokenizer
        self.restores = chat.restores

    def text(self, query: str, document: str) -> str:
        """The text of a pair."""
        messages = [("query", query), ("document", document)]
        if self._chat.prompt:
            messages.insert(0, ("system", self._chat.prompt))
        flat = self._form == "flat"
        conversation = [
            {"role": role, "content": content if flat else [{"type": "text", "text": content}]}
            for role, content in messages
        ]
        with self._files.named_errors():
            return str(self.tokenizer.apply_chat_template(conversation, tokenize=False, **self._chat.arguments))

    def last_ids(self) -> list[int]:
        """The tokens at the end of every text."""
        first, second = (
            self.tokenizer(self.text(filler, filler), add_special_tokens=False)["input_ids"] for filler in _FILLERS
        )
        count = 0
        while count < min(len(first), len(second)) and first[-1 - count] == second[-1 - count]:
            count += 1
        return [] if count in (0, len(first), len(second)) else list(first[len(first) - count :])


def _fixed(rendering: _Rendering) -> PairTemplate | str:
    """The texts around query and document, or what is wrong with the template."""
    template = getattr(rendering.tokenizer, "chat_template", None)
    if not template or "strftime_now" in str(template):
        return "it holds the time" if template else "it has none"
    try:
        text = rendering.text(*_MARKS)
    except ExportedModelError as error:
        # Templates refuse roles that they do not know.
        return f"it fails: {error.found}"
    for role, mark in zip(("query", "document"), _MARKS, strict=True):
        if text.count(mark) != 1:
            return f"it shows the {role} {text.count(mark)} times"
    before, _, rest = text.partition(_MARKS[0])
    between, found, after = rest.partition(_MARKS[1])
    if not found:
        return "it shows the document before the query"
    rendered = [rendering.text(*probe) for probe in _PROBES]
    if rendered == [before + query + between + document + after for query, document in _PROBES]:
        strip = False
    elif rendered == [before + query.strip() + between + document.strip() + after for query, document in _PROBES]:
        strip = True
    else:
        return "what it puts around them depends on them"
    return PairTemplate(before, between, after, strip, tuple(rendering.last_ids() if rendering.restores else ()))
