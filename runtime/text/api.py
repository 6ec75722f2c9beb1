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
from runtime.text.prompts import POOLING_MASK, prompt_length
from runtime.text.question_answering import QuestionAnsweringTask
from runtime.text.results import Answer, Candidate, Classification, Tag
from runtime.text.task_methods import expect, labels, rules
from runtime.text.token_classification import Aggregation, TokenClassificationTask


class Text:
    """What a session does with text. Safe to use from several threads.

    Args:
        run: runs the model: tensors by name in, tensors by name out.
        manifest: what the artifact says of itself.
        encoder: its tokenizer.
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
            truncate: cut texts at the model's length; without it, a longer one is an error.

        Raises:
            InputTextError: no text, no string, or a text that is too long.
        """
        return self._encoder.encode(texts, truncate=truncate)

    def numbers(
        self, texts: Sequence[str | tuple[str, str]], *, truncate: bool = False, errors: Errors = "raise"
    ) -> list[Outputs]:
        """The model's outputs for each text or pair, for any task: float32, by name, without batch axis and padding.

        Args:
            texts: strings, or tuples of two.
            truncate: cut texts at the model's length.
            errors: raise the first, or return each in its text's place.

        Raises:
            InputTextError: a text that does not fit.
        """
        return self._runner.run(OutputsTask(self._encoder, truncate, pairs=True), texts, errors)

    def embed(
        self, texts: Sequence[str], *, prompt: str | None = None, truncate: bool = False, errors: Errors = "raise"
    ) -> list[torch.Tensor]:
        """Vectors of float32: a sentence's [embedding]; for feature extraction one a token, [tokens, hidden].

        Args:
            texts: strings.
            prompt: put before each text; None: the model's default, which most do not have. Where the model pools
                without the prompt's tokens, they are left out.
            truncate: cut texts at the model's length.
            errors: raise the first, or return each in its text's place.

        Raises:
            InputTaskError: the artifact does not embed.
            InputTextError: a text that does not fit.
        """
        expect(self._manifest, "embed")
        if prompt is None:
            prompt = self._encoder.info.rules.prompt if self._encoder.info.rules is not None else ""
        if prompt and isinstance(texts, (list, tuple)):
            # An empty text behind a prompt is still one that is refused.
            texts = [prompt + text if isinstance(text, str) and text.strip() else text for text in texts]
        left_out = prompt_length(self._encoder, prompt) if POOLING_MASK in self._inputs else 0
        task = EmbeddingTask(self._encoder, self._manifest.outputs[0].name, truncate)
        return self._runner.run(task, texts, errors, prompt=left_out)

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
            top_k: how many labels to give scores of; None: all.
            truncate: cut texts at the model's length.
            errors: raise the first, or return each in its text's place.

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
        """The labelled parts of each text, in order.

        Args:
            texts: strings.
            aggregation: which tokens become one tag: none, simple, first, average or max
                (`runtime.text.token_classification`).
            ignore: labels that are left out.
            stride: divide texts that are too long into windows that share so many tokens; needs an aggregation.
            truncate: cut texts at the model's length.
            errors: raise the first, or return each in its text's place.

        Raises:
            InputTaskError: the artifact does not label tokens, or an older exporter wrote it.
            InputTextError: a text or an option that does not fit.
        """
        said = rules(self._manifest, "tag")
        task = TokenClassificationTask(
            self._encoder, labels(self._manifest), aggregation, ignore, said.unknown_id, stride, truncate
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
            window: tokens of question and context at once, at most; a longer context is divided.
            stride: tokens of the context that neighbouring windows share; None: 128, or half of a shorter window.
            longest: most tokens of an answer.
            impossible: whether there may be none, for models that were trained to say so.
            errors: raise the first, or return each in its pair's place.

        Raises:
            InputTaskError: the artifact does not answer questions, or an older exporter wrote it.
            InputTextError: a text or an option that does not fit.
        """
        said = rules(self._manifest, "answer")
        task = QuestionAnsweringTask(self._encoder, said.class_id, window, stride, longest, impossible)
        return self._runner.run(task, pairs, errors, "pair")

    def fill(
        self, texts: Sequence[str], *, top_k: int = fill_mask.TOP_K, truncate: bool = False, errors: Errors = "raise"
    ) -> list[list[list[Candidate]]]:
        """For each text, for each of its masks, the likeliest tokens, the best first.

        Args:
            texts: strings that hold the mask token at least once.
            top_k: how many candidates a mask.
            truncate: cut texts at the model's length.
            errors: as for the others.

        Raises:
            InputTaskError: the artifact does not fill masks, or an older exporter wrote it.
            InputTextError: a text that does not fit.
        """
        said = rules(self._manifest, "fill")
        if said.mask_id is None or said.mask_token is None:
            raise InputTaskError("the artifact's tokenizer has no mask token", "one, to fill it in")
        task = FillMaskTask(self._encoder, (said.mask_id, said.mask_token), top_k, truncate)
        return self._runner.run(task, texts, errors)
