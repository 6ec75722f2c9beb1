"""Sounds in, text or labels out: as transformers' pipelines answer, and one line for what does not fit."""

from __future__ import annotations

import dataclasses
import json
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from exporter import ExportRequest, Report, export
from exporter.loading.sound_steps import plan_sounds
from runtime import Session, load
from runtime.audio import Transcript, read_wave
from runtime.errors import (
    ExtraMissingError,
    InputError,
    InputFileError,
    InputRankError,
    InputSizeError,
    InputTaskError,
    InputTypeError,
    InputValueError,
    ManifestDamagedError,
    VerificationError,
)
from runtime.format.codec import from_json, to_json
from runtime.format.manifest import Axis, Preprocessing
from runtime.text import Classification
from tests.conftest import BIN, run
from tests.support import sounds
from tests.support.sounds import RATE, sound

SPEECH, CLASSES = "automatic-speech-recognition", "audio-classification"
VALUES = "input_values"
# Name → task, and what makes the folder.
MODELS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "wav2vec2": (SPEECH, sounds.wave_folder),
    "hubert": (SPEECH, lambda folder: sounds.wave_folder(folder, "Hubert", feat_extract_norm="layer")),
    "data2vec": (SPEECH, lambda folder: sounds.wave_folder(folder, "Data2VecAudio", feat_extract_norm="layer")),
    "wavlm": (SPEECH, lambda folder: sounds.wave_folder(folder, "WavLM")),
    "wav2vec2-bert": (SPEECH, sounds.bert_folder),
    "parakeet": (SPEECH, sounds.pieces_folder),
    "commands": (CLASSES, lambda folder: sounds.wave_folder(folder, head="ForSequenceClassification", num_labels=5)),
    "bert-classes": (CLASSES, lambda folder: sounds.bert_folder(folder, "ForSequenceClassification", num_labels=3)),
    "spectrogram": (CLASSES, sounds.spectrogram_folder),
    "whisper": (CLASSES, sounds.whisper_folder),
    "several": (CLASSES, lambda folder: sounds.spectrogram_folder(folder, problem_type="multi_label_classification")),
    "regression": (CLASSES, lambda folder: sounds.spectrogram_folder(folder, problem_type="regression")),
}
FIXED = ("spectrogram", "whisper", "several", "regression")


class Model:
    """One model twice: as transformers has it, and as an artifact."""

    def __init__(self, task: str, folder: Path, report: Report) -> None:
        self.folder, self.report = folder, report
        self.session: Session = load(report.output)
        self.pipeline: Any = transformers.pipeline(task, model=str(folder), device="cpu")

    @property
    def audio(self) -> Any:
        return self.session.audio


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, exported: Callable[..., Report]) -> Callable[..., Model]:
    made: dict[str, Model] = {}

    def make(name: str) -> Model:
        if name not in made:
            task, folder_of = MODELS[name]
            folder = folder_of(tmp_path_factory.mktemp(name))
            limit = {} if name in FIXED else {"max_audio_seconds": 4}
            # Not verified: each test compares it with the model itself.
            made[name] = Model(task, folder, exported(folder, backend="plain", verify="off", **limit))
        return made[name]

    return make


def of_task(task: str) -> list[str]:
    return [name for name, (known, _) in MODELS.items() if known == task]


# WavLM's own attention, which gets a mask from the pipeline.
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
@pytest.mark.parametrize("name", of_task(SPEECH))
def test_transcripts_are_those_of_the_pipeline(model: Callable[..., Model], name: str) -> None:
    one = model(name)
    heard = [sound(seconds, seed) for seed, seconds in enumerate((1.3, 1.5001, 2.0, 3.97))]
    expected = [one.pipeline(samples.numpy())["text"] for samples in heard]
    assert len(set("".join(expected))) > 5
    assert one.audio.transcribe(heard, RATE) == expected
    assert one.audio.transcribe(heard[0], RATE) == expected[0]


@pytest.mark.parametrize("parts", ["word", "char"])
@pytest.mark.parametrize("name", ["wav2vec2", "hubert", "wav2vec2-bert"])
def test_times_are_those_of_the_pipeline(model: Callable[..., Model], name: str, parts: Any) -> None:
    one = model(name)
    expected = one.pipeline(sound(2.2).numpy(), return_timestamps=parts)
    found = one.audio.transcribe(sound(2.2), RATE, timestamps=parts)
    assert isinstance(found, Transcript) and found.text == expected["text"]
    times = [(chunk["text"], *map(float, chunk["timestamp"])) for chunk in expected["chunks"]]
    assert [(chunk.text, chunk.start, chunk.end) for chunk in found.chunks] == times and times


@pytest.mark.parametrize("name", of_task(CLASSES))
def test_labels_are_those_of_the_pipeline(model: Callable[..., Model], name: str) -> None:
    one = model(name)
    for seconds in (1.3, 1.99):
        expected = one.pipeline(sound(seconds).numpy(), top_k=None)
        found = one.audio.classify(sound(seconds), RATE)
        assert isinstance(found, Classification)
        assert list(found.scores) == [entry["label"] for entry in expected] and found.label == expected[0]["label"]
        assert list(found.scores.values()) == pytest.approx([entry["score"] for entry in expected], abs=1e-5, rel=1e-5)
    assert (
        list(one.audio.classify(sound(1.3), RATE, top_k=2).scores)
        == list(one.audio.classify(sound(1.3), RATE).scores)[:2]
    )


@pytest.mark.parametrize("name", FIXED[:2])
def test_longer_sounds_than_the_extractor_keeps_are_cut_when_asked(model: Callable[..., Model], name: str) -> None:
    one = model(name)
    with pytest.raises(
        InputSizeError, match=r"the sound lasts 3\.00 s; expected 0\.0[13] to 2\.0[02] s; .*truncate=True"
    ):
        one.audio.classify(sound(3.0), RATE)
    expected = one.pipeline(sound(3.0).numpy(), top_k=None)
    found = one.audio.classify(sound(3.0), RATE, truncate=True)
    assert list(found.scores.values()) == pytest.approx([entry["score"] for entry in expected], abs=1e-5)


def test_a_sound_is_cut_at_the_longest_that_was_verified(model: Callable[..., Model]) -> None:
    one = model("wav2vec2")
    expected = one.audio.transcribe(sound(5.0)[: 4 * RATE], RATE)
    assert one.audio.transcribe(sound(5.0), RATE, truncate=True) == expected


def test_numbers_are_the_outputs(model: Callable[..., Model]) -> None:
    one = model("wav2vec2")
    inputs = one.pipeline.feature_extractor(sound(1.5).numpy(), sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        expected = one.pipeline.model(inputs["input_values"]).logits[0]
    found = one.audio.numbers(sound(1.5), RATE)
    assert list(found) == ["logits"]
    torch.testing.assert_close(found["logits"], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled_by_soxr(model: Callable[..., Model], rate: int) -> None:
    soxr = pytest.importorskip("soxr")
    one = model("wav2vec2-bert")
    heard = sound(2 * rate / RATE)
    there = torch.from_numpy(soxr.resample(heard.numpy(), rate, RATE, quality="HQ"))
    assert one.audio.transcribe(heard, rate) == one.audio.transcribe(there, RATE)


def test_a_low_tone_is_heard_as_the_same_at_every_rate(model: Callable[..., Model]) -> None:
    """Resampled, it is what the same sound is at the model's own rate."""
    pytest.importorskip("soxr")
    one = model("commands")
    scores = []
    for rate in (RATE, 8_000, 48_000):
        time = torch.arange(2 * rate, dtype=torch.float64) / rate
        tone = (torch.sin(2 * torch.pi * 220 * time) * torch.sin(3 * time)).float()
        scores.append(one.audio.classify(tone, rate).scores)
    for other in scores[1:]:
        assert other == pytest.approx(scores[0], abs=5e-2)


def test_without_soxr_another_rate_is_refused(model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    one = model("wav2vec2")
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(
        ExtraMissingError, match=r"the rate is 8000 Hz.*soxr.*expected 16000 Hz; install export-model\[a"
    ):
        one.audio.transcribe(sound(1.0), 8_000)
    assert one.audio.transcribe(sound(1.0), RATE)


def test_what_a_sound_may_be(model: Callable[..., Model]) -> None:
    one = model("wav2vec2")
    exact = (sound(1.0) * 20_000).round()
    samples = exact / 2**15
    array = samples.numpy()
    read_only = array.copy()
    read_only.flags.writeable = False
    expected = one.audio.transcribe(samples, RATE)
    same: list[Any] = [
        array,
        read_only,
        array[::-1].copy()[::-1],
        array.astype(np.float64),
        array.astype(">f4"),
        samples.double(),
        samples.tolist(),
        exact.to(torch.int16),
        exact.numpy().astype(np.int16),
        (exact.to(torch.int64) * 2**16).to(torch.int32),
        samples.unsqueeze(0),
        torch.stack([samples * 1.5, samples * 0.5]),
        samples.clone().requires_grad_(),
    ]
    assert one.audio.transcribe(same, RATE) == [expected] * len(same)
    assert one.audio.transcribe(tuple(same), float(RATE)) == [expected] * len(same)


GOOD = sound(1.0)
BAD: list[tuple[Any, type[InputError], str]] = [
    (torch.zeros(RATE), InputValueError, "is silent: all 16000 samples are 0; expected a sound"),
    (torch.full((RATE,), 0.25), InputValueError, "is silent: all 16000 samples are 0.25"),
    (torch.zeros(0), InputSizeError, r"is empty; expected 0.25 to 4.00 s"),
    (torch.where(torch.arange(RATE) == 9, torch.nan, GOOD), InputValueError, "holds values that are not finite"),
    (torch.where(torch.arange(RATE) == 9, torch.inf, GOOD), InputValueError, "holds values that are not finite"),
    (GOOD[:3999], InputSizeError, r"lasts 0.249 s; expected 0.25 to 4.00 s"),
    (sound(4.01), InputSizeError, r"lasts 4.01 s; expected 0.25 to 4.00 s; divide it, or ask for truncation"),
    (GOOD * 32768, InputValueError, r"holds \d+.*expected samples from -1 to 1; divide 16-bit samples by 32768"),
    (torch.stack([GOOD, GOOD], 1), InputRankError, r"has shape \[16000, 2\];.*take the mean of the channels"),
    (torch.stack([GOOD] * 3), InputRankError, r"has shape \[3, 16000\]"),
    (GOOD.reshape(1, 1, -1), InputRankError, r"has shape \[1, 1, 16000\]"),
    (GOOD.to(torch.int64), InputTypeError, "has dtype torch.int64; expected float32 samples from -1 to 1, or int16"),
    (GOOD.to(torch.complex64), InputTypeError, "has dtype torch.complex64"),
    ("sound.wav", InputTypeError, "is 'sound.wav'; expected float32 samples"),
    (None, InputTypeError, "is None"),
    ([[0.1, 0.2], [0.3]], InputTypeError, "is not an array of numbers"),
    (np.array(["a"]), InputTypeError, "is not an array of numbers"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_a_bad_sound_is_refused_in_one_line_and_others_are_answered(model: Callable[..., Model], number: int) -> None:
    one = model("wav2vec2")
    value, kind, text = BAD[number]
    with pytest.raises(kind, match="^sound 2 " + text) as caught:
        one.audio.transcribe([GOOD, value], RATE)
    assert "\n" not in str(caught.value)
    first, error, last = one.audio.transcribe([GOOD, value, GOOD], RATE, errors="return")
    assert type(error) is kind and first == last == one.audio.transcribe(GOOD, RATE)


@pytest.mark.parametrize("rate", [0, -16000, 16000.5, "16000", None, True, float("nan"), 10**9])
def test_a_rate_that_is_none(model: Callable[..., Model], rate: Any) -> None:
    with pytest.raises(InputValueError, match=r"^rate is .*; expected samples per second, from 1000 to 1000000$"):
        model("wav2vec2").audio.transcribe(GOOD, rate)


def test_options_that_are_none(model: Callable[..., Model]) -> None:
    audio, classes = model("wav2vec2").audio, model("commands").audio
    with pytest.raises(InputValueError, match="samples is an empty list"):
        audio.transcribe([], RATE)
    with pytest.raises(InputValueError, match="timestamps is 'words'; expected word, char or None"):
        audio.transcribe(GOOD, RATE, timestamps="words")
    with pytest.raises(InputValueError, match="errors is 'skip'"):
        audio.transcribe(GOOD, RATE, errors="skip")
    with pytest.raises(InputValueError, match="top_k is 0"):
        classes.classify(GOOD, RATE, top_k=0)
    with pytest.raises(InputTaskError, match="transcribe on an artifact for audio-classification.*call classify"):
        classes.transcribe(GOOD, RATE)
    with pytest.raises(InputTaskError, match="classify on an artifact for automatic-speech-recognition"):
        audio.classify(GOOD, RATE)
    with pytest.raises(InputTaskError, match="timestamps='word' on a model whose tokens are pieces of words"):
        model("parakeet").audio.transcribe(sound(1.5), RATE, timestamps="word")


def test_a_model_of_texts_takes_no_sounds(tiny_session: Session) -> None:
    with pytest.raises(InputTaskError, match="the artifact makes no inputs of sounds"):
        _ = tiny_session.audio


@pytest.mark.parametrize(
    "settings",
    [
        {"do_lower_case": True},
        {"word_delimiter_token": "X", "replace_word_delimiter_char": "_"},
        {"pad_token": "B"},
        {"clean_up_tokenization_spaces": True},
        {"unk_token": "Q"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_of_the_tokenizer(tmp_path: Path, exported: Callable[..., Report], settings: dict[str, Any]) -> None:
    folder = sounds.wave_folder(tmp_path, "Hubert", feat_extract_norm="layer", tokenizer=settings)
    one = Model(SPEECH, folder, exported(folder, backend="plain", verify="off", max_audio_seconds=3))
    for seconds in (1.5, 2.5):
        expected = one.pipeline(sound(seconds).numpy(), return_timestamps="word")
        found = one.audio.transcribe(sound(seconds), RATE, timestamps="word")
        assert found.text == expected["text"]
        assert [chunk.text for chunk in found.chunks] == [chunk["text"] for chunk in expected["chunks"]]


def test_a_vocabulary_smaller_than_the_models(tmp_path: Path, exported: Callable[..., Report]) -> None:
    """Ids without a token are unknown ones, of which neighbours are one."""
    folder = sounds.wave_folder(tmp_path, "Hubert", feat_extract_norm="layer")
    sounds.character_tokenizer(folder, sounds.CHARACTERS[:20])
    one = Model(SPEECH, folder, exported(folder, backend="plain", verify="off", max_audio_seconds=3))
    expected = one.pipeline(sound(2.5).numpy())["text"]
    assert "<unk>" in expected and one.audio.transcribe(sound(2.5), RATE) == expected


def test_a_folder_of_a_joint_processor(tmp_path: Path, exported: Callable[..., Report]) -> None:
    """transformers 5 writes the extractor's settings into processor_config.json."""
    folder = sounds.wave_folder(tmp_path, "Hubert", feat_extract_norm="layer")
    processor = transformers.Wav2Vec2Processor.from_pretrained(folder)
    (folder / "preprocessor_config.json").unlink()
    processor.save_pretrained(folder)
    one = Model(SPEECH, folder, exported(folder, backend="plain", verify="off", max_audio_seconds=3))
    assert one.audio.transcribe(sound(2.0), RATE) == one.pipeline(sound(2.0).numpy())["text"]


def test_a_language_model_is_told_and_not_used(tmp_path: Path, exported: Callable[..., Report]) -> None:
    folder = sounds.wave_folder(tmp_path)
    (folder / "alphabet.json").write_text("{}")
    report = exported(folder, backend="plain", verify="off", max_audio_seconds=3)
    assert any("without the folder's language model" in choice for choice in report.choices)


def test_without_a_tokenizer_there_are_the_outputs(tmp_path: Path, exported: Callable[..., Report]) -> None:
    folder = sounds.wave_folder(tmp_path)
    for name in ("vocab.json", "tokenizer_config.json"):
        (folder / name).unlink()
    report = exported(folder, backend="plain", verify="off", max_audio_seconds=3)
    assert any("no transcripts, only the outputs: the folder has no tokenizer" in one for one in report.choices)
    audio = load(report.output).audio
    assert audio.numbers(GOOD, RATE)["logits"].shape[1] == len(sounds.CHARACTERS)
    with pytest.raises(InputTaskError, match="cannot turn its outputs into text"):
        audio.transcribe(GOOD, RATE)


def test_an_extractor_that_is_not_known_is_told(tmp_path: Path, exported: Callable[..., Report]) -> None:
    folder = sounds.whisper_folder(tmp_path)
    transformers.WhisperFeatureExtractor(feature_size=40, chunk_length=2, dither=0.1).save_pretrained(folder)
    report = exported(folder, backend="plain", verify="off")
    assert any(
        "dither 0.1" in choice and choice.startswith("no preprocessing of sounds in the file")
        for choice in report.choices
    )
    session = load(report.output)
    with pytest.raises(InputTaskError, match="the artifact makes no inputs of sounds"):
        _ = session.audio
    assert session(input_features=torch.zeros(1, 40, 200))["logits"].shape == (1, 2)


def test_the_file_itself_is_compared_with_the_extractor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a fresh process: sounds that the extractor heard otherwise are an error of the written file."""
    folder = sounds.wave_folder(tmp_path, head="ForSequenceClassification")
    request = ExportRequest(str(folder), tmp_path / "m.pt", backend="plain", verify="quick", max_audio_seconds=2)
    report = export(request)
    assert report.manifest.preprocessing == Preprocessing("audio", (Axis("samples", 4000, 2 * RATE),), (VALUES,), RATE)
    assert any(one.startswith("sounds at 16000 Hz are preprocessed in the file, as Wav2") for one in report.choices)

    def heard_otherwise(*given: Any) -> Any:
        plan = plan_sounds(*given)
        (first, *others) = plan.cases
        other = dataclasses.replace(first, outputs={VALUES: first.outputs[VALUES] + 0.01})
        return dataclasses.replace(plan, cases=(other, *others))

    monkeypatch.setattr("exporter.pipeline.plan_sounds", heard_otherwise)
    with pytest.raises(VerificationError, match="input_values, preprocessed from short, is off by 1.00e-02"):
        export(dataclasses.replace(request, output=tmp_path / "other.pt"))
    assert not (tmp_path / "other.pt").exists()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda ctc: ctc["characters"]["tokens"].pop(), "ctc.characters.tokens"),
        (lambda ctc: ctc.update(samples_per_step=0), "ctc.samples_per_step"),
        (lambda ctc: ctc["characters"].update(space=3), "ctc.characters.space"),
    ],
)
def test_a_damaged_decoding(model: Callable[..., Model], change: Callable[[Any], Any], place: str) -> None:
    manifest = json.loads(to_json(model("wav2vec2").report.manifest))
    change(manifest["ctc"])
    with pytest.raises(ManifestDamagedError, match=place):
        from_json(json.dumps(manifest).encode(), "a file")


def write_wave(path: Path, samples: torch.Tensor, width: int = 2, rate: int = RATE) -> Path:
    """PCM of one or more channels, [samples] or [samples, channels]."""
    whole = (samples.double() * 2 ** (8 * width - 1)).round().to(torch.int64)
    data = ((whole + 128) if width == 1 else whole).numpy().astype("<i8").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1] if samples.dim() == 2 else 1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(b"".join(data[i : i + width] for i in range(0, len(data), 8)))
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_files(tmp_path: Path, width: int, channels: int) -> None:
    samples = torch.stack([sound(0.1, seed) for seed in range(channels)], 1) * 0.9
    read, rate = read_wave(write_wave(tmp_path / "a.wav", samples, width, 22_050))
    assert rate == 22_050 and read.dtype == torch.float32
    torch.testing.assert_close(read, samples.mean(1), rtol=0, atol=1e-8 + 1.1 * 2.0 ** (-8 * width))


def test_files_that_are_no_wav(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with pytest.raises(InputFileError, match=r"cannot read .*a\.wav: No such file"):
        read_wave(path)
    for content in (b"", b"RIFF", b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00", b"\x00" * 100):
        path.write_bytes(content)
        with pytest.raises(InputFileError, match="expected a wav file of PCM"):
            read_wave(path)
    whole = write_wave(path, sound(0.1)).read_bytes()
    path.write_bytes(whole[:20] + b"\x03\x00" + whole[22:])
    with pytest.raises(InputFileError, match="unknown format"):
        read_wave(path)
    write_wave(path, torch.zeros(0))
    with pytest.raises(InputFileError, match="holds no samples"):
        read_wave(path)
    write_wave(path, sound(0.1).unsqueeze(1).repeat(1, 3))
    with pytest.raises(InputFileError, match="3 channels of 16 bits"):
        read_wave(path)


def test_predict_reads_wav_files(model: Callable[..., Model], tmp_path: Path) -> None:
    one = model("wav2vec2")
    good = write_wave(tmp_path / "good.wav", sound(1.5))
    silent = write_wave(tmp_path / "silent.wav", torch.zeros(RATE))
    expected = one.audio.transcribe(read_wave(good)[0], RATE)
    command = [BIN / "run-model", "predict", one.report.output]
    done = run([*command, "--audio", good, "--audio", silent, "--audio", good])
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row.get("text") for row in rows] == [expected, None, expected] and rows[0]["audio"] == str(good)
    assert "is silent" in rows[1]["error"]
    assert done.returncode == 1 and "1 of 3 sounds failed" in done.stderr and "silent.wav" in done.stderr
    done = run([*command, "--audio", good, "--timestamps", "word"])
    row = json.loads(done.stdout)
    assert row["text"] == expected and set(row["chunks"][0]) == {"text", "start", "end"}
    done = run([*command, "--audio", good, "--top-k", "2"])
    assert done.returncode == 1 and "--top-k" in done.stderr


def test_predict_classifies_wav_files(model: Callable[..., Model], tmp_path: Path) -> None:
    one = model("commands")
    good = write_wave(tmp_path / "good.wav", sound(1.5))
    done = run([BIN / "run-model", "predict", one.report.output, "--audio", good, "--top-k", "2"])
    row = json.loads(done.stdout)
    assert row["label"] == one.audio.classify(read_wave(good)[0], RATE).label and len(row["scores"]) == 2
