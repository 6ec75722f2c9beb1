"""Which method of `session.text` an artifact supports, and the parts of its manifest that the method needs."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.errors import InputTaskError
from runtime.format.manifest import EmbeddingInfo, Manifest, TextRules, TokenOutputs

# Task → the method of `session.text` for it.
METHODS = {
    "sentence-embedding": "embed",
    "feature-extraction": "embed",
    "text-embedding": "embed",
    "sparse-embedding": "embed_sparse",
    "token-embedding": "embed_tokens",
    "text-classification": "classify",
    "reranking": "rerank",
    "token-classification": "tag",
    "question-answering": "answer",
    "fill-mask": "fill",
    "text-generation": "generate",
}
# Method → further tasks that it is for; a reranker is a classifier of one label.
_ALSO = {"embed": ("sparse-embedding", "token-embedding"), "classify": ("reranking",)}
# Methods that a model with further outputs has too.
_OF_TOKENS = ("embed_sparse", "embed_tokens")
# What embeds texts to vectors of which a part can be kept.
_OF_DIMENSIONS = ("sentence-embedding", "text-embedding")


def token_outputs(manifest: Manifest) -> TokenOutputs | None:
    """The further outputs of an artifact that embeds texts and their tokens; None if it has none."""
    return manifest.embedding.tokens if manifest.embedding is not None else None


def expect(manifest: Manifest, method: str) -> None:
    """Check that the method is for the artifact's task.

    Raises:
        InputTaskError: it is not.
    """
    task = manifest.task
    if method in _OF_TOKENS and token_outputs(manifest) is not None:
        return
    if METHODS.get(task) != method and task not in _ALSO.get(method, ()):
        tasks = [*(name for name, known in METHODS.items() if known == method), *_ALSO.get(method, ())]
        wanted = " or ".join(tasks)
        remedy = f"call {METHODS[task]}" if task in METHODS else "call numbers, for the outputs as they are"
        raise InputTaskError(f"{method} on an artifact for {task}", f"an artifact for {wanted}", remedy)


def labels(manifest: Manifest) -> tuple[str, ...]:
    """The artifact's labels.

    Raises:
        InputTaskError: it has none.
    """
    if not manifest.labels:
        raise InputTaskError(
            "the artifact has no labels", "an artifact with labels", "call numbers, for the outputs as they are"
        )
    return manifest.labels


def embedding_info(manifest: Manifest, what: str) -> EmbeddingInfo:
    """How the artifact embeds texts, for an argument or method that needs to know.

    Raises:
        InputTaskError: the manifest does not say it, or the artifact is for another task.
    """
    known = _OF_DIMENSIONS if what == "dimensions" else (*_OF_DIMENSIONS, "sparse-embedding")
    if manifest.embedding is not None and manifest.task in known:
        return manifest.embedding
    if manifest.task not in known:
        raise InputTaskError(f"{what} on an artifact for {manifest.task}", f"an artifact for {' or '.join(known)}")
    raise InputTaskError(
        f"{what} needs settings for embeddings, which the exporter of this file did not write",
        "a file of a newer exporter",
        "export the model again",
    )


def prompts(manifest: Manifest) -> Mapping[str, str]:
    """The artifact's prompts by name.

    Raises:
        InputTaskError: as for `embedding_info`.
    """
    sides = manifest.late_interaction
    if sides is not None and sides.prompts is not None:
        return sides.prompts
    return embedding_info(manifest, "prompt_name").prompts


def rules(manifest: Manifest, method: str) -> TextRules:
    """The manifest's rules for text, for a method that needs them.

    Raises:
        InputTaskError: the manifest has none, or the method is for another task.
    """
    expect(manifest, method)
    if manifest.text is None or manifest.text.rules is None:
        raise InputTaskError(
            f"{method} needs rules for text, which the exporter of this file did not write",
            "a file of a newer exporter",
            "export the model again",
        )
    return manifest.text.rules
