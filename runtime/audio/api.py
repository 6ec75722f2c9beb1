"""`session.audio`: one method per task. A sound gives a result, a list of sounds a list of results, in order.

Each sound is computed on its own, as transformers' pipelines do: padding would change its result with some models.
With `errors="raise"` the first error is raised and names its sound. With `errors="return"` the error of a sound that is
refused, or on which the model fails, takes the place of its result, and the other sounds are processed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from runtime import preprocessing
from runtime.audio import sounds
from runtime.audio.ctc import Timestamps, transcript
from runtime.audio.sounds import SoundLimits
from runtime.errors import ArtifactFailedError, InputError, InputTaskError, InputTextError, InputValueError
from runtime.format.manifest import Manifest
from runtime.text.classification import SCORES
from runtime.text.results import Classification, classified

Errors = Literal["raise", "return"]
Outputs = dict[str, torch.Tensor]

# Task → the method of `session.audio` for it; `numbers` is for all.
METHODS = {"automatic-speech-recognition": "transcribe", "audio-classification": "classify"}


class Audio:
    """The methods of a session that take sounds. Safe to use from several threads.

    Args:
        run: runs the model: takes inputs by name, returns outputs by name.
        preprocess: makes one row's inputs of a sound, float32 [samples], at the model's rate.
        manifest: the artifact's manifest.
        join: the text of token ids, by the artifact's tokenizer.

    Raises:
        InputTaskError: the artifact makes no inputs of sounds.
    """

    def __init__(
        self,
        run: Callable[..., Outputs],
        preprocess: Callable[[torch.Tensor], Outputs],
        manifest: Manifest,
        join: Callable[[Sequence[int]], str],
    ) -> None:
        rules = preprocessing.expect(manifest, "audio")
        (axis,) = rules.axes
        self._run = run
        self._preprocess = preprocess
        self._manifest = manifest
        self._join = join
        # The reader of the manifest sees to it that sounds have a rate.
        self._limits = SoundLimits(rules.rate or 0, axis.minimum, axis.maximum)

    def transcribe(
        self,
        samples: Any,
        rate: int,
        *,
        timestamps: Timestamps | None = None,
        truncate: bool = False,
        errors: Errors = "raise",
    ) -> Any:
        """What is said in a sound: a string, or with `timestamps` a `Transcript`.

        Args:
            samples: a sound, or a list of sounds: arrays or tensors [samples], or [channels, samples] of two channels.
                float32 from -1 to 1, or PCM of int16 or int32.
            rate: samples per second; another one than the model's needs the package soxr.
            timestamps: `word` or `char`: when each of them is heard.
            truncate: cut sounds at the model's maximum length.
            errors: `raise` the first error, or `return` each in its sound's place.

        Raises:
            InputTaskError: the artifact does not transcribe, or gives no such timestamps.
            InputError: a sound or an option that does not fit; the subclass says how.
            ExtraMissingError: a package is needed and absent.
        """
        self._expect("transcribe")
        info = self._manifest.ctc
        if info is None:
            raise InputTaskError(
                "this artifact cannot turn its outputs into text",
                "an artifact that was exported with a tokenizer which the exporter can decode with",
                "call numbers, for the outputs as they are; the export says why",
            )
        if timestamps not in (None, "word", "char"):
            raise InputValueError(f"timestamps is {timestamps!r}", "word, char or None")

        def decode(outputs: Outputs) -> Any:
            ids = outputs["logits"].argmax(-1).tolist()
            found = transcript(ids, info, self._limits.rate, timestamps, self._join)
            return found.text if timestamps is None else found

        return self._each(samples, rate, truncate, errors, decode)

    def classify(
        self,
        samples: Any,
        rate: int,
        *,
        top_k: int | None = None,
        truncate: bool = False,
        errors: Errors = "raise",
    ) -> Any:
        """The best label of a sound, and the scores of all that are kept: a `Classification`.

        Args:
            samples: a sound, or a list of sounds, as for `transcribe`.
            rate: samples per second.
            top_k: the number of labels to return scores for; None: all.
            truncate: cut sounds at the model's maximum length.
            errors: `raise` the first error, or `return` each in its sound's place.

        Raises:
            InputTaskError: the artifact does not classify sounds.
            InputError, ExtraMissingError: as for `transcribe`.
        """
        self._expect("classify")
        labels = self._manifest.labels
        if not labels:
            raise InputTaskError(
                "the artifact has no labels", "an artifact with labels", "call numbers, for the outputs as they are"
            )
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise InputValueError(f"top_k is {top_k!r}", "a whole number from 1")
        score = SCORES[self._manifest.activation]

        def best(outputs: Outputs) -> Classification:
            return classified(score(outputs["logits"]).tolist(), labels, top_k)

        return self._each(samples, rate, truncate, errors, best)

    def numbers(self, samples: Any, rate: int, *, truncate: bool = False, errors: Errors = "raise") -> Any:
        """The model's outputs for a sound, for any task: float32, by name, without the batch axis.

        Args:
            samples: a sound, or a list of sounds, as for `transcribe`.
            rate: samples per second.
            truncate: cut sounds at the model's maximum length.
            errors: `raise` the first error, or `return` each in its sound's place.

        Raises:
            InputError, ExtraMissingError: as for `transcribe`.
        """
        return self._each(samples, rate, truncate, errors, lambda outputs: outputs)

    def _expect(self, method: str) -> None:
        task = self._manifest.task
        if METHODS.get(task) != method:
            wanted = next(name for name, known in METHODS.items() if known == method)
            remedy = f"call {METHODS.get(task, 'numbers')}"
            raise InputTaskError(f"{method} on an artifact for {task}", f"an artifact for {wanted}", remedy)

    def _each(self, samples: Any, rate: int, truncate: bool, errors: Errors, result: Callable[[Outputs], Any]) -> Any:
        """The result of one sound, or a list of results or errors."""
        if errors not in ("raise", "return"):
            raise InputValueError(f"errors is {errors!r}", "raise or return")
        rate = sounds.check_rate(rate)
        found = sounds.several(samples)
        if found is None:
            return self._one(samples, rate, truncate, "the sound", errors, result)
        if not found:
            raise InputValueError("samples is an empty list", "a sound, or a list of at least one sound")
        return [
            self._one(one, rate, truncate, f"sound {number}", errors, result) for number, one in enumerate(found, 1)
        ]

    def _one(
        self, value: Any, rate: int, truncate: bool, name: str, errors: Errors, result: Callable[[Outputs], Any]
    ) -> Any:
        try:
            inputs = self._preprocess(sounds.prepare(value, rate, self._limits, truncate, name))
            return result({key: output[0] for key, output in self._run(**inputs).items()})
        except (InputError, ArtifactFailedError) as error:
            if errors == "return":
                return error
            if isinstance(error, (ArtifactFailedError, InputTextError)):
                raise type(error)(f"{name}: {error.found}", error.expected, error.remedy) from error
            raise
