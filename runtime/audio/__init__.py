"""Sounds in, results of the task out, with the preprocessing, the decoding and the labels in the artifact.

    session = runtime.load("model.pt")
    session.audio.transcribe(samples, 16000)

The results equal those of transformers' pipelines for the same model. `api` has the public methods, `sounds` checks
what the caller passes, `resampling` is the only module that imports the package soxr, `ctc` turns scores into text.
"""

from runtime.audio.api import Audio
from runtime.audio.results import Chunk, Transcript
from runtime.audio.wave_file import read_wave

__all__ = ["Audio", "Chunk", "Transcript", "read_wave"]
