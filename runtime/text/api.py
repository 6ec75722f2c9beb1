"""`session.text`: one method per task. Each returns a list with one result per text, in order.

InputTaskError is raised if the artifact is for another task, InputTextError if a text is not a string, is empty or is
too long. With `errors="raise"` the first error is raised and names its text. With `errors="return"` the error of a text
that is refused, or on which the model fails, takes the place of its result, and the other texts are processed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch

from runtime.errors import InputTaskError, InputTextError
from runtime.format.manifest import Manifest
from runtime.generation.loop import Decode
from runtime.printing import shown
from runtime.text import fill_mask, question_answering
from runtime.text.batched import Errors, Outputs, TaskRunner, positive
from runtime.text.classification import ClassificationTask, OutputsTask, RerankingTask
from runtime.text.embedding import EmbeddingTask, check_dimensions, similarity
from runtime.text.encoder import TextEncoder
from runtime.text.fill_mask import FillMaskTask
from runtime.text.generation import TextGenerator, expect_one_beam, is_conversation, make_request
from runtime.text.late_interaction import Side, TokenVectorsTask, text_side
from runtime.text.prompts import POOLING_MASK, named_prompt, prompt_length, with_prompt
from runtime.text.question_answering import QuestionAnsweringTask
from runtime.text.results import Answer, Candidate, Classification, Ranked, Tag
from runtime.text.sparse import SparseTask, TokenWeightsTask
from runtime.text.task_methods import embedding_info, expect, labels, prompts, rules, token_outputs
from runtime.text.token_classification import Aggregation, TokenClassificationTask


class Text:
    """The methods of a session that take text. Safe to use from several threads.

    Args:
        run: runs the model: takes inputs by name, returns outputs by name.
        manifest: the artifact's manifest.
        encoder: encodes texts with the artifact's tokenizer.
        decode: reads tokens into a cache, for an artifact that generates text.
    """

    def __init__(
        self,
        run: Callable[..., dict[str, torch.Tensor]],
        manifest: Manifest,
        encoder: TextEncoder,
        decode: Decode | None = None,
    ) -> None:
        self._manifest = manifest
        self._encoder = encoder
        self._decode = decode
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
        self,
        texts: Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        dimensions: int | None = None,
        truncate: bool = False,
        errors: Errors = "raise",
    ) -> list[torch.Tensor]:
        """Embeddings of float32: one per text, [embedding]; for feature extraction one per token, [tokens, hidden].

        For sparse embeddings a text's tensor is [vocabulary], most of it 0; for token embeddings see `embed_tokens`.

        Args:
            texts: strings.
            prompt_name: which of the model's prompts to put before each text.
            prompt: a prompt of your own. Without both it is the model's default prompt, if it has one. If the model's
                pooling excludes the prompt's tokens, they are left out of the mean.
            dimensions: how many numbers of each text's vector to keep, from its beginning; None: all. If the model
                normalises its vectors, what is kept is normalised again.
            truncate: cut texts at the model's maximum length.
            errors: `raise` the first error, or `return` each in its text's place.

        Raises:
            InputTaskError: the artifact does not embed, or an older exporter wrote it.
            InputTextError: a text or an option that does not fit.
        """
        expect(self._manifest, "embed")
        if self._manifest.task == "token-embedding" and dimensions is None:
            return self.embed_tokens(texts, prompt_name=prompt_name, prompt=prompt, truncate=truncate, errors=errors)
        normalized = False
        if dimensions is not None:
            normalized = embedding_info(self._manifest, "dimensions").normalized
            check_dimensions(dimensions, self._manifest.outputs[0].axes[-1].maximum)
        prompt = self._prompt(prompt_name, prompt)
        texts = with_prompt(texts, prompt)
        left_out = prompt_length(self._encoder, prompt) if POOLING_MASK in self._inputs else 0
        task = EmbeddingTask(self._encoder, self._manifest.outputs[0].name, truncate, dimensions, normalized)
        return self._runner.run(task, texts, errors, prompt=left_out)

    def _prompt(self, name: str | None, prompt: str | None) -> str:
        if prompt is None and name is None:
            return self._encoder.info.rules.prompt if self._encoder.info.rules is not None else ""
        if name is None and isinstance(prompt, str):
            return prompt
        if name is None:
            raise InputTextError(f"prompt is {shown(prompt)}", "a string")
        if prompt is not None:
            raise InputTextError("prompt and prompt_name are both given", "one of them", "leave the other out")
        return named_prompt(prompts(self._manifest), name)

    def similarity(
        self, a: torch.Tensor | Sequence[torch.Tensor], b: torch.Tensor | Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Each vector of `a` compared with each of `b`, by the model's own similarity: float32 [len(a), len(b)].

        It is cosine unless the model's folder names another: dot, euclidean or manhattan. The last two are distances,
        negated.

        Args:
            a: what `embed` returned, or a tensor [number, size].
            b: the same.

        Raises:
            InputTaskError: the artifact is for another task, or an older exporter wrote it.
            InputTypeError: not vectors.
            InputSizeError: vectors of different sizes.
        """
        return similarity(embedding_info(self._manifest, "similarity"), a, b)

    def embed_sparse(
        self,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate: bool = False,
        errors: Errors = "raise",
    ) -> list[dict[str, float]]:
        """The tokens of the vocabulary that each text is about, with their weights, the largest first.

        Args:
            texts: strings.
            top_k: the number of tokens per text; None: all whose weight is not 0.
            prompt_name: which of the model's prompts to put before each text.
            prompt: a prompt of your own. Without both it is the model's default prompt, if it has one.
            truncate: cut texts at the model's maximum length.
            errors: `raise` the first error, or `return` each in its text's place.

        Raises:
            InputTaskError: the artifact is not for sparse embeddings.
            InputTextError: a text or an option that does not fit.
        """
        expect(self._manifest, "embed_sparse")
        texts = with_prompt(texts, self._prompt(prompt_name, prompt))
        further = token_outputs(self._manifest)
        if further is not None:
            return self._runner.run(TokenWeightsTask(self._encoder, further, top_k, truncate), texts, errors)
        task = SparseTask(self._encoder, self._manifest.outputs[0].name, top_k, truncate)
        return self._runner.run(task, texts, errors)

    def embed_tokens(
        self,
        texts: Sequence[str],
        *,
        side: Side | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate: bool = False,
        errors: Errors = "raise",
    ) -> list[torch.Tensor]:
        """A vector per token of each text, float32 [tokens, size], for late interaction (ColBERT).

        Args:
            texts: strings.
            side: `query` or `document`: the model's prompt, length and left-out tokens of that side, and for queries
                the tokens that the model adds. None: the default prompt, and the left-out tokens of a document.
            prompt_name: which of the model's prompts to put before each text, in place of that of the side.
            prompt: a prompt of your own, in place of that of the side.
            truncate: cut texts at the maximum length of the side.
            errors: `raise` the first error, or `return` each in its text's place.

        Raises:
            InputTaskError: the artifact is not for token embeddings.
            InputTextError: a text or an option that does not fit.
        """
        expect(self._manifest, "embed_tokens")
        settings = text_side(self._manifest, side)
        if prompt is None and prompt_name is None:
            prompt = settings.prompt
        texts = with_prompt(texts, self._prompt(prompt_name, prompt))
        further = token_outputs(self._manifest)
        name = self._manifest.outputs[0].name if further is None else further.vectors
        task = TokenVectorsTask(self._encoder, name, settings, truncate, first=further is None)
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

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_k: int | None = None,
        prompt_name: str | None = None,
        truncate: bool = False,
    ) -> list[Ranked]:
        """The documents with their scores for the query, best first; equal scores stay in the caller's order.

        Args:
            query: a string.
            documents: strings.
            top_k: the number of documents to return; None: all.
            prompt_name: None; the file has the folder's default prompt, and no other.
            truncate: cut pairs of query and document at the model's maximum length.

        Raises:
            InputTaskError: the artifact does not rerank, or a prompt is named.
            InputTextError: no documents, or a query, a document or an option that does not fit.
        """
        expect(self._manifest, "rerank")
        if prompt_name is not None:
            raise InputTaskError(
                f"prompt_name {shown(prompt_name)} for reranking",
                "no name: pairs have the prompt that the folder sets by default, if there is one",
                "leave prompt_name out",
            )
        kept = None if top_k is None else positive("top_k", top_k)
        if not isinstance(query, str) or not query.strip():
            raise InputTextError(f"query is {shown(query)}", "a string of at least one word")
        # What is no list goes to the runner as it is, and is refused there.
        pairs = [(query, one) for one in documents] if isinstance(documents, (list, tuple)) else documents
        task = RerankingTask(self._encoder, self._manifest.activation, truncate)
        scores = self._runner.run(task, pairs, "raise", "document")
        ranked = [Ranked(i, score, text) for i, (score, text) in enumerate(zip(scores, documents, strict=True))]
        return sorted(ranked, key=lambda one: one.score, reverse=True)[:kept]

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

    def generate(
        self,
        prompts: Any,
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        num_beams: int | None = None,
        logprobs: bool = False,
        stream: bool = False,
        errors: Errors = "raise",
    ) -> Any:
        """Write texts on.

        What is not given is as in the folder's `generation_config.json`. It samples if a temperature above 0, `top_k`,
        `top_p` or `min_p` is given, and not with temperature 0; the steps are transformers', in its order: repetition
        penalty, temperature, top-k, top-p, min-p. Without sampling the tokens are those of transformers' `generate`.

        Args:
            prompts: a text; or the messages of a conversation, each with "role" and "content", which go through the
                chat template; or a list of texts or conversations, which are written together.
            max_new_tokens: None: 256, or what there is room for.
            temperature: from 0.
            top_k: the number of tokens to choose from; 0: all.
            top_p: the share of probability to choose from, 0 to 1.
            min_p: the least probability to choose from, as a share of the largest.
            repetition_penalty: what the logits of tokens that were there before are divided by, from 0.
            seed: of the draws, for texts that can be repeated; text number i of a list has this one plus i.
            stop: texts that end a text; they are not part of it.
            num_beams: so many texts are written along, and the best of them is the result; not with sampling, `stop` or
                `stream`. The tokens are those of transformers' `generate`.
            logprobs: also tell how probable each token was.
            stream: give an iterator of pieces of text, for one prompt. No piece ends within a character. Behind the
                last one, the iterator's `result` is what is returned otherwise.
            errors: `raise` the first error, or `return` each in its prompt's place; for lists.

        Returns:
            A `Generated` for one prompt, a list of them for a list; or the iterator.

        Raises:
            InputTaskError: the artifact does not generate text, or has no chat template.
            InputTextError: a prompt, a message or an option that does not fit.
            ArtifactFailedError: the model failed, or memory ran out.
            ExtraMissingError: messages without the package jinja2.
        """
        generator = self.generator()
        request = make_request(
            generator.info.defaults,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            stop=stop,
            num_beams=num_beams,
            logprobs=logprobs,
        )
        one = isinstance(prompts, str) or is_conversation(prompts)
        if not one and (not isinstance(prompts, (list, tuple)) or not prompts):
            raise InputTextError(f"prompts is {prompts!r}"[:200], "a text, messages, or a list of them")
        name = "conversation" if is_conversation(prompts if one else prompts[0]) else "prompt"
        if stream:
            if not one:
                raise InputTextError("stream with a list of prompts", "one prompt", "leave stream out")
            expect_one_beam(request, "stream")
            return generator.stream(prompts, request, name)
        if one:
            (found,) = generator.results([prompts], request, "raise", name)
            return found
        if errors not in ("raise", "return"):
            raise InputTextError(f"errors is {errors!r}", "raise or return")
        return generator.results(prompts, request, errors, name)

    def generator(self) -> TextGenerator:
        """What `generate` and the pool for generation write texts with.

        Raises:
            InputTaskError: the artifact does not generate text.
        """
        expect(self._manifest, "generate")
        info = self._manifest.generation
        if info is None or self._decode is None:
            raise InputTaskError(
                "generate needs the cache of a generation, which this artifact does not have", "", "export it again"
            )
        return TextGenerator(self._decode, info, self._encoder)
