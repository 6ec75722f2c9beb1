"""Layouts of models of sounds: letters by CTC, classes and vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.model_matrix.layouts.folder import MediaFolder, Model
from tests.model_matrix.layouts.layout import Layout, in_area
from tests.model_matrix.layouts.media import Sounds
from tests.model_matrix.layouts.rerankers import labels

_layout = in_area("sounds")

_LETTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
_VOCABULARY = {letter: number for number, letter in enumerate(_LETTERS)}
_CTC_TOKENIZER: dict[str, dict[str, Any]] = {
    "vocab.json": _VOCABULARY,
    "tokenizer_config.json": {
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "do_lower_case": False,
        "word_delimiter_token": "|",
        "tokenizer_class": "Wav2Vec2CTCTokenizer",
    },
    "special_tokens_map.json": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
}
_CTC = {"vocab_size": len(_LETTERS), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GROUP = {"feat_extract_norm": "group", "conv_bias": False, "do_stable_layer_norm": False}
_LAYER = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
_COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "_silence_", "_unknown_")


def _waves(mask: bool, normalize: bool = True) -> dict[str, Any]:
    settings = {
        "do_normalize": normalize,
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": mask,
        "sampling_rate": 16000,
    }
    return {"preprocessor_config.json": settings}


def _sounds(
    name: str,
    architecture: str,
    kind: str,
    config: Mapping[str, Any],
    files: Mapping[str, Any],
    seconds: Sequence[float] = (10.0, 2.7),
    padding: Any = True,
    **more: Any,
) -> Layout:
    comparison = Sounds(architecture, seconds, padding)
    return _layout(name, MediaFolder(Model(architecture, kind, config, **more), files), comparison)


LAYOUTS: tuple[Layout, ...] = (
    _sounds(
        "facebook/wav2vec2-base-960h",
        "Wav2Vec2ForCTC",
        "wav2vec2",
        {**_CTC, **_GROUP},
        _waves(False) | _CTC_TOKENIZER,
    ),
    _sounds(
        "jonatasgrosman/wav2vec2-large-xlsr-53-english",
        "Wav2Vec2ForCTC",
        "wav2vec2",
        {**_CTC, **_LAYER},
        _waves(True) | _CTC_TOKENIZER,
    ),
    _sounds(
        "facebook/hubert-large-ls960-ft",
        "HubertForCTC",
        "hubert",
        {**_CTC, **_LAYER, "conv_pos_batch_norm": False},
        _waves(True) | _CTC_TOKENIZER,
    ),
    _sounds(
        "patrickvonplaten/wavlm-libri-clean-100h-base-plus",
        "WavLMForCTC",
        "wavlm",
        {**_CTC, **_GROUP, "num_buckets": 320},
        _waves(True) | _CTC_TOKENIZER,
    ),
    _sounds(
        "facebook/data2vec-audio-base-960h",
        "Data2VecAudioForCTC",
        "data2vec-audio",
        {**_CTC, "feat_extract_norm": "layer", "conv_bias": False},
        _waves(True) | _CTC_TOKENIZER,
    ),
    _sounds(
        "facebook/mms-1b-all",
        "Wav2Vec2ForCTC",
        "wav2vec2",
        {**_CTC, **_LAYER, "adapter_attn_dim": 16},
        _waves(True)
        | {
            **_CTC_TOKENIZER,
            "vocab.json": {"eng": _VOCABULARY},
            "tokenizer_config.json": {**_CTC_TOKENIZER["tokenizer_config.json"], "target_lang": "eng"},
        },
    ),
    _sounds(
        "facebook/mms-lid-126",
        "Wav2Vec2ForSequenceClassification",
        "wav2vec2",
        {**_LAYER, **labels(("ara", "cmn", "eng", "spa", "fra"))},
        _waves(True),
    ),
    _sounds(
        "superb/wav2vec2-base-superb-ks",
        "Wav2Vec2ForSequenceClassification",
        "wav2vec2",
        {**_GROUP, "use_weighted_layer_sum": True, **labels(_COMMANDS)},
        _waves(True),
    ),
    _sounds(
        "superb/hubert-large-superb-er",
        "HubertForSequenceClassification",
        "hubert",
        {**_LAYER, "use_weighted_layer_sum": True, **labels(("neu", "hap", "ang", "sad"))},
        _waves(True),
    ),
    _sounds(
        "microsoft/wavlm-base-plus-sv",
        "WavLMForXVector",
        "wavlm",
        {**_GROUP, "tdnn_dim": [512, 512, 512, 512, 1500], "xvector_output_dim": 512},
        _waves(True, False),
    ),
    _sounds("facebook/hubert-base-ls960", "HubertModel", "hubert", _GROUP, _waves(False)),
    _sounds(
        "hf-audio/wav2vec2-bert-CV16-en",
        "Wav2Vec2BertForCTC",
        "wav2vec2-bert",
        {**_CTC, "add_adapter": True, "feature_projection_input_dim": 160},
        {
            "preprocessor_config.json": {
                "feature_extractor_type": "SeamlessM4TFeatureExtractor",
                "feature_size": 80,
                "num_mel_bins": 80,
                "padding_side": "right",
                "padding_value": 1,
                "return_attention_mask": True,
                "sampling_rate": 16000,
                "stride": 2,
            }
        }
        | _CTC_TOKENIZER,
    ),
    _sounds(
        "MIT/ast-finetuned-audioset-10-10-0.4593",
        "ASTForAudioClassification",
        "audio-spectrogram-transformer",
        {"max_length": 1024, "num_mel_bins": 128, **labels(("Speech", "Music", "Dog", "Siren"))},
        {
            "preprocessor_config.json": {
                "do_normalize": True,
                "feature_extractor_type": "ASTFeatureExtractor",
                "feature_size": 1,
                "max_length": 1024,
                "mean": -4.2677393,
                "num_mel_bins": 128,
                "padding_side": "right",
                "padding_value": 0.0,
                "return_attention_mask": False,
                "sampling_rate": 16000,
                "std": 4.5689974,
            }
        },
        padding="max_length",
        kept=("max_length",),
    ),
    _sounds(
        "sanchit-gandhi/whisper-medium-fleurs-lang-id",
        "WhisperForAudioClassification",
        "whisper",
        {"use_weighted_layer_sum": False, "max_source_positions": 1500, **labels(("en", "de", "fr", "ja"))},
        {
            "preprocessor_config.json": {
                "chunk_length": 30,
                "feature_extractor_type": "WhisperFeatureExtractor",
                "feature_size": 80,
                "hop_length": 160,
                "n_fft": 400,
                "n_samples": 480000,
                "nb_max_frames": 3000,
                "padding_side": "right",
                "padding_value": 0.0,
                "return_attention_mask": False,
                "sampling_rate": 16000,
            }
        },
        padding="max_length",
        kept=("max_source_positions",),
    ),
    _sounds(
        "nvidia/parakeet-ctc-0.6b",
        "ParakeetForCTC",
        "parakeet_ctc",
        {"vocab_size": 1025, "pad_token_id": 1024},
        {
            "preprocessor_config.json": {
                "feature_extractor_type": "ParakeetFeatureExtractor",
                "feature_size": 80,
                "hop_length": 160,
                "n_fft": 512,
                "padding_side": "right",
                "padding_value": 0.0,
                "preemphasis": 0.97,
                "return_attention_mask": True,
                "sampling_rate": 16000,
                "win_length": 400,
            }
        },
    ),
)
