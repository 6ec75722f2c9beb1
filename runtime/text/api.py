"""`session.text`: one method per task. Each returns a list with one result per text, in order.

InputTaskError is raised if the artifact is for another task, InputTextError if a text is not a string, is empty or is
too long. With `errors="raise"` the first error is raised and names its text. With `errors="return"` the error of a text
that is refused, or on which the model fails, takes the place of its result, and the other texts are processed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch

from runtime.errors import InputTaskError
from runtime.format.manifest import Manifest
from runtime.text import fill_mask, question_answering
from runtime.text.batched import Errors, Outputs, TaskRunner
from runtime.text.classification import ClassificationTask, EmbeddingTask, OutputsTask
from runtime.text.encoder import TextEncoder
from runtime.text.fill_mask import FillMaskTask
from runtime.text.late_interaction import Side, TokenVectorsTask, text_side
from runtime.text.prompts import POOLING_MASK, prompt_length, with_prompt
from runtime.text.question_answering import QuestionAnsweringTask
from runtime.text.results import Answer, Candidate, Classification, Tag
from runtime.text.sparse import SparseTask
from runtime.text.task_methods import expect, labels, rules
from runtime.text.token_classification import Aggregation, TokenClassificationTask


class Text:
    """The methods of a session that take text. Safe to use from several threads.

    Args:
        run: runs the model: takes inputs by name, returns outputs by name.
        manifest: the artifact's manifest.
        encoder: encodes texts with the artifact's tokenizer.
    """

    def __init__(self, run: Callable[..., dict[str, torch.Tensor]], manifest: Manifest, encoder: TextEncoder) -> None:
        self._manifest = manifest
        self._encoder = encoder
        self._inputs = [spec.name for spec in manifest.inputs]
        self._runner = TaskRunner(run, manifest, encoder)

    def encode(self, texts: Sequence[str], *, truncate: bool = False) -> dict[str, torch.Tensor]:
        """Inputs for the session, of int64, shape [number of texts, tokens of the longest text].

        Args:
            texts: at least one.
            truncate: cut texts at the model's maximum length; without it, a longer text is an error.

        Raises:
            InputTextError: no texts, a value that is not a string, or a text that is too long.
        """
        return self._encoder.encode(texts, truncate=truncate)

    def numbers(
        self, texts: Sequence[str | tuple[str, str]], *, truncate: bool = False, errors: Errors = "raise"
    ) -> list[Outputs]:
        """The model's outputs for each text or pair, for any task: float32, by name, without batch axis and padding.

        Args:
            texts: strings, or tuples of two.
            truncate: cut texts at the model's maximum length.
            errors: `raise` the first error, or `return` each in its text's place.

        Raises:
            InputTextError: a text that does not fit.
        """
        return self._runner.run(OutputsTask(self._encoder, truncate, pairs=True), texts, errors)

    def embed(
        self, texts: Sequence[str], *, prompt: str | None = None, truncate: bool = False, errors: Errors = "raise"
    ) -> list[torch.Tensor]:
        """Embeddings of float32: one per text, [embedding]; for feature extraction one per token, [tokens, hidden].

        For sparse embeddings a text's tensor is [vocabulary], most of it 0; for token embeddings see `embed_tokens`.

        Args:
            texts: strings.
            prompt: put before each text; None: the model's default prompt, if it has one. If the model's pooling
                excludes the prompt's tokens, they are left out of the mean.
            truncate: cut texts at the model's maximum length.
            errors: `raise` the first error, or `return` each in its text's place.

        Raises:
            InputTaskError: the artifact does not embed.
            InputTextError: a text that does not fit.
        """
        expect(self._manifest, "embed")
        if self._manifest.task == "token-embedding":
            return self.embed_tokens(texts, prompt=prompt, truncate=truncate, errors=errors)
        texts, prompt = with_prompt(self._encoder, texts, prompt)
        left_out = prompt_length(self._encoder, prompt) if POOLING_MASK in self._inputs else 0
        task = EmbeddingTask(self._encoder, self._manifest.outputs[0].name, truncate)
        return self._runner.run(task, texts, errors, prompt=left_out)

    def embed_sparse(
        self,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        prompt: str | None = None,
        truncate: bool = False,
        errors: Errors = "raise",
    ) -> list[dict[str, float]]:
        """The tokens of the vocabulary that each text is about, with their weights, the largest first.

        Args:
            texts: strings.
            top_k: the number of tokens per text; None: all whose weight is not 0.
            prompt: put before each text; None: the model's default prompt, if it has one.
            truncate: cut texts at the model's maximum length.
            errors: `raise` the first error, or `return` each in its text's place.

        Raises:
            InputTaskError: the artifact is not for sparse embeddings.
            InputTextError: a text or an option that does not fit.
        """
        expect(self._manifest, "embed_sparse")
        texts, _ = with_prompt(self._encoder, texts, prompt)
        task = SparseTask(self._encoder, self._manifest.outputs[0].name, top_k, truncate)
        return self._runner.run(task, texts, errors)

    def embed_tokens(
        self,
        texts: Sequence[str],
        *,
        side: Side | None = None,
        prompt: str | None = None,
        truncate: bool = False,
        errors: Errors = "raise",
    ) -> list[torch.Tensor]:
        """A vector per token of each text, float32 [tokens, size], for late interaction (ColBERT).

        Args:
            texts: strings.
            side: `query` or `document`: the model's prompt, length and left-out tokens of that side, and for queries
                the tokens that the model adds. None: the default prompt, and the left-out tokens of a document.
            prompt: put before each text in place of the model's prompt.
            truncate: cut texts at the maximum length of the side.
            errors: `raise` the first error, or `return` each in its text's place.

        Raises:
            InputTaskError: the artifact is not for token embeddings.
            InputTextError: a text or an option that does not fit.
        """
        expect(self._manifest, "embed_tokens")
        settings = text_side(self._manifest, side)
        texts, _ = with_prompt(self._encoder, texts, settings.prompt if prompt is None else prompt)
        task = TokenVectorsTask(self._encoder, self._manifest.outputs[0].name, settings, truncate)
        return self._runner.run(task, texts, errors)

    def classify(
        self,
        texts: Sequence[str | tuple[str, str]],
        *,
        top_k: int | None = None,
        truncate: bool = False,
        errors: Errors = "raise",
    ) -> list[Classification]:
        """The best label of each text, or of each pair of texts.

        Args:
            texts: strings, or tuples of two.
            top_k: the number of labels to return scores for; None: all.
            truncate: cut texts at the model's maximum length.
            errors: `raise` the first error, or `return` each in its text's place.

        Raises:
            InputTaskError: the artifact does not classify texts.
            InputTextError: a text that does not fit.
        """
        expect(self._manifest, "classify")
        task = ClassificationTask(self._encoder, labels(self._manifest), self._manifest.activation, top_k, truncate)
        return self._runner.run(task, texts, errors)

    def tag(
        self,
        texts: Sequence[str],
        *,
        aggregation: Aggregation = "simple",
        ignore: Collection[str] = ("O",),
        stride: int | None = None,
        truncate: bool = False,
        errors: Errors = "raise",
    ) -> list[list[Tag]]:
        """The labelled tokens, words or entities of each text, in order.

        Args:
            texts: strings.
            aggregation: how tokens are joined: none, simple, first, average or max
                (`runtime.text.token_classification`).
            ignore: labels that are left out.
            stride: divide long texts into windows that share so many tokens; needs an aggregation.
            truncate: cut texts at the model's maximum length.
            errors: `raise` the first error, or `return` each in its text's place.

        Raises:
            InputTaskError: the artifact does not label tokens, or an older exporter wrote it.
            InputTextError: a text or an option that does not fit.
        """
        stored = rules(self._manifest, "tag")
        task = TokenClassificationTask(
            self._encoder, labels(self._manifest), aggregation, ignore, stored.unknown_id, stride, truncate
        )
        return self._runner.run(task, texts, errors)

    def answer(
        self,
        question: str,
        context: str,
        *,
        window: int = question_answering.WINDOW,
        stride: int | None = None,
        longest: int = question_answering.LONGEST,
        impossible: bool = False,
    ) -> Answer:
        """The part of the context that answers the question; arguments and errors as for `answers`."""
        pairs = [(question, context)]
        return self.answers(pairs, window=window, stride=stride, longest=longest, impossible=impossible)[0]

    def answers(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        window: int = question_answering.WINDOW,
        stride: int | None = None,
        longest: int = question_answering.LONGEST,
        impossible: bool = False,
        errors: Errors = "raise",
    ) -> list[Answer]:
        """The answer to each question, as a part of its context.

        Args:
            pairs: tuples of question and context.
            window: the maximum of tokens of question and context together; a longer context is divided.
            stride: the tokens of the context that neighbouring windows share; None: 128, or half of a shorter window.
            longest: the maximum of tokens of an answer.
            impossible: allow "no answer", for models that were trained for it.
            errors: `raise` the first error, or `return` each in its pair's place.

        Raises:
            InputTaskError: the artifact does not answer questions, or an older exporter wrote it.
            InputTextError: a text or an option that does not fit.
        """
        stored = rules(self._manifest, "answer")
        task = QuestionAnsweringTask(self._encoder, stored.class_id, window, stride, longest, impossible)
        return self._runner.run(task, pairs, errors, "pair")

    def fill(
        self, texts: Sequence[str], *, top_k: int = fill_mask.TOP_K, truncate: bool = False, errors: Errors = "raise"
    ) -> list[list[list[Candidate]]]:
        """The most probable tokens for each mask of each text, best first.

        Args:
            texts: strings that hold the mask token at least once.
            top_k: the number of candidates per mask.
            truncate: cut texts at the model's maximum length.
            errors: `raise` the first error, or `return` each in its text's place.

        Raises:
            InputTaskError: the artifact does not fill masks, or an older exporter wrote it.
            InputTextError: a text that does not fit.
        """
        stored = rules(self._manifest, "fill")
        if stored.mask_id is None or stored.mask_token is None:
            raise InputTaskError("the artifact's tokenizer has no mask token", "a tokenizer with a mask token")
        task = FillMaskTask(self._encoder, (stored.mask_id, stored.mask_token), top_k, truncate)
        return self._runner.run(task, texts, errors)
