"""Folders of small models for sounds, whole as people have them: weights, feature extractor, tokenizer. And sounds.

The weights are random, and large enough that a transcript has many different characters.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

RATE = 16_000
CHARACTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'", "."]

_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.3,
}
_WAVE: dict[str, Any] = {
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": len(CHARACTERS),
    "pad_token_id": 0,
    "apply_spec_augment": False,
}


def sound(seconds: float, seed: int = 0) -> torch.Tensor:
    """A mixture of tones that change, with noise."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * RATE)) / RATE
    made = 0.02 * torch.randn(len(time), generator=generator)
    for _ in range(6):
        pitch, speed, phase = (torch.rand(3, generator=generator) * torch.tensor([3000.0, 9.0, 6.0])).tolist()
        made += 0.1 * torch.sin(2 * torch.pi * pitch * time) * torch.sin(speed * time + phase)
    return made


def wave_folder(folder: Path, kind: str = "Wav2Vec2", head: str = "ForCTC", **settings: Any) -> Path:
    """A model that takes samples: Wav2Vec2, Hubert, …, with a tokenizer of characters if it is for CTC."""
    norm = settings.pop("feat_extract_norm", "group")
    extractor = settings.pop("extractor", {})
    tokenizer = settings.pop("tokenizer", {})
    torch.manual_seed(settings.pop("seed", 3))
    config = getattr(transformers, f"{kind}Config")(**_SMALL | _WAVE, feat_extract_norm=norm, **settings)
    save(getattr(transformers, f"{kind}{head}")(config), folder, input_values=sound(3.0, 9).mul(4).unsqueeze(0))
    mask = {"return_attention_mask": norm == "layer"}
    transformers.Wav2Vec2FeatureExtractor(**mask | extractor).save_pretrained(folder)
    if head == "ForCTC":
        character_tokenizer(folder, **tokenizer)
    return folder


def character_tokenizer(folder: Path, tokens: list[str] = CHARACTERS, **settings: Any) -> None:
    """A vocabulary of characters, as Wav2Vec2's tokenizer reads it."""
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), **settings).save_pretrained(folder)


def save(model: Any, folder: Path, **probe: torch.Tensor) -> None:
    """The model; for CTC its last layer such that each token is the best at some step of an input."""
    last = getattr(model.eval(), "lm_head", None) or getattr(model, "ctc_head", None)
    if last is not None:
        with torch.no_grad():
            logits = model(**probe).logits[0]
        last.bias.data -= logits.mean(0)
        # Blanks and spaces are the likeliest.
        last.bias.data[[0, 4]] += logits.std(0).mean()
    model.save_pretrained(folder)


def bert_folder(folder: Path, head: str = "ForCTC", **settings: Any) -> Path:
    """Wav2Vec2-BERT: mel energies of two frames at once."""
    torch.manual_seed(3)
    config = transformers.Wav2Vec2BertConfig(
        **_SMALL, vocab_size=len(CHARACTERS), pad_token_id=0, apply_spec_augment=False, **settings
    )
    probe = torch.randn(1, 150, 160, generator=torch.Generator().manual_seed(1))
    save(getattr(transformers, f"Wav2Vec2Bert{head}")(config), folder, input_features=probe)
    transformers.SeamlessM4TFeatureExtractor(padding_value=1).save_pretrained(folder)
    if head == "ForCTC":
        character_tokenizer(folder)
    return folder


def spectrogram_folder(folder: Path, **settings: Any) -> Path:
    """A classifier of spectrograms of two seconds."""
    torch.manual_seed(3)
    config = transformers.ASTConfig(**_SMALL, max_length=200, num_mel_bins=64, **settings)
    save(transformers.ASTForAudioClassification(config), folder)
    transformers.ASTFeatureExtractor(max_length=200, num_mel_bins=64).save_pretrained(folder)
    return folder


def whisper_folder(folder: Path, **settings: Any) -> Path:
    """A classifier with Whisper's encoder, of sounds of two seconds."""
    torch.manual_seed(3)
    config = transformers.WhisperConfig(
        vocab_size=64,
        num_mel_bins=40,
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
        max_source_positions=100,
        classifier_proj_size=16,
        init_std=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        **settings,
    )
    save(transformers.WhisperForAudioClassification(config), folder)
    transformers.WhisperFeatureExtractor(feature_size=40, chunk_length=2).save_pretrained(folder)
    return folder


def pieces_folder(folder: Path) -> Path:
    """Parakeet: mel energies normalised over the sound, and a tokenizer of pieces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=80, special_tokens=["<unk>", "<pad>"])
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog and then the other one"] * 3, trainer)
    made = transformers.ParakeetTokenizer(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")
    made.save_pretrained(folder)
    torch.manual_seed(3)
    config = transformers.ParakeetCTCConfig(
        vocab_size=len(made),
        pad_token_id=made.pad_token_id,
        encoder_config=_SMALL
        | {"num_mel_bins": 40, "subsampling_conv_channels": 16, "conv_kernel_size": 9, "num_key_value_heads": 2},
    )
    probe = torch.randn(1, 300, 40, generator=torch.Generator().manual_seed(1))
    save(transformers.ParakeetForCTC(config), folder, input_features=probe)
    transformers.ParakeetFeatureExtractor(feature_size=40).save_pretrained(folder)
    return folder


FOLDERS: dict[str, Callable[..., Path]] = {
    "wave": wave_folder,
    "bert": bert_folder,
    "spectrogram": spectrogram_folder,
    "whisper": whisper_folder,
    "pieces": pieces_folder,
}
