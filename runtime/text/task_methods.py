"""Which method of `session.text` an artifact supports, and the parts of its manifest that the method needs."""

from __future__ import annotations

from runtime.errors import InputTaskError
from runtime.format.manifest import Manifest, TextRules

# Task → the method of `session.text` that gives its answers.
METHODS = {
    "sentence-embedding": "embed",
    "feature-extraction": "embed",
    "text-classification": "classify",
    "token-classification": "tag",
    "question-answering": "answer",
    "fill-mask": "fill",
}


def expect(manifest: Manifest, method: str) -> None:
    """That the method is the one of the artifact's task.

    Raises:
        InputTaskError: it is not.
    """
    task = manifest.task
    if METHODS.get(task) != method:
        wanted = " or ".join(name for name, known in METHODS.items() if known == method)
        right = f"call {METHODS[task]}" if task in METHODS else "call numbers, for the outputs as they are"
        raise InputTaskError(f"{method} on an artifact for {task}", f"one for {wanted}", right)


def labels(manifest: Manifest) -> tuple[str, ...]:
    """The artifact's labels.

    Raises:
        InputTaskError: it has none.
    """
    if not manifest.labels:
        raise InputTaskError("the artifact has no labels", "some", "call numbers, for the outputs as they are")
    return manifest.labels


def rules(manifest: Manifest, method: str) -> TextRules:
    """What the artifact says of its tokenizer, for a method that needs it.

    Raises:
        InputTaskError: it says nothing, or the method is another task's.
    """
    expect(manifest, method)
    if manifest.text is None or manifest.text.rules is None:
        raise InputTaskError(
            f"{method} on a file of an older exporter, which did not write what that needs of the tokenizer",
            "a newer one",
            "export the model again",
        )
    return manifest.text.rules
