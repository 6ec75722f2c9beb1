"""Layouts of adapters and of folders that must be refused, each for a cause that the message has to name."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from safetensors.torch import save_file

from runtime import Session
from tests.model_matrix.layouts.decoders import QWEN3, qwen_pairs
from tests.model_matrix.layouts.embeddings import MEAN, OLD_KEYS
from tests.model_matrix.layouts.folder import (
    NORMALIZE,
    MediaFolder,
    Model,
    Sentence,
    SentenceFolder,
    Stage,
    TextFolder,
    pooling,
    version_3,
    write,
)
from tests.model_matrix.layouts.layout import Builder, Layout, in_area
from tests.model_matrix.layouts.rerankers import ROBERTA, labels
from tests.model_matrix.layouts.texts import TEXTS
from tests.model_matrix.layouts.vectors import close_scores
from tests.model_matrix.layouts.vision import processor, square
from tests.model_matrix.layouts.vocabularies import byte_pairs, unigrams, word_pieces

_adapter = in_area("adapters")
_refused = in_area("must be refused")


@dataclass(frozen=True)
class _Adapter:
    """A base, and a PEFT adapter beside it or in its own folder; `name` is the base as the adapter names it."""

    base: Builder
    targets: Sequence[str]
    task: str
    name: str
    head: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    at: str = ""
    alone: bool = False
    keys: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, folder: Path) -> None:
        """Write it."""
        inner = folder / self.at
        inner.mkdir(parents=True, exist_ok=True)
        self.base(inner)
        model = transformers.AutoModel.from_pretrained(inner)
        chance = torch.Generator().manual_seed(3)
        saved = {}
        prefix = "base_model.model." + (f"{model.base_model_prefix}." if self.task == "SEQ_CLS" else "")
        for name, module in model.named_modules():
            if name.rsplit(".", 1)[-1] in self.targets:
                for part, shape in (("A", (8, module.in_features)), ("B", (module.out_features, 8))):
                    weights = torch.randn(*shape, generator=chance) * 0.3
                    saved[f"{prefix}{name}.lora_{part}.weight"] = weights
        for name, sizes in self.head.items():
            scale = 1.2 / math.sqrt(sizes[-1])
            saved[f"base_model.model.{name}"] = torch.randn(*sizes, generator=chance) * scale
        save_file(saved, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
        heads = sorted({name.split(".")[0] for name in self.head}) or None
        write(folder / "adapter_config.json", _lora(self.name, self.targets, self.task, heads) | dict(self.keys))
        if self.at:
            for path in inner.glob("*token*"):
                shutil.copyfile(path, folder / path.name)
        if self.alone:
            for name in ("config.json", "model.safetensors"):
                (folder / name).unlink()


def _lora(base: str, targets: Sequence[str], task: str, heads: list[str] | None) -> dict[str, Any]:
    return {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "modules_to_save": heads,
        "peft_type": "LORA",
        "r": 8,
        "rank_pattern": {},
        "revision": None,
        "target_modules": list(targets),
        "task_type": task,
        "use_dora": False,
        "use_rslora": False,
    }


@dataclass(frozen=True)
class AdaptedClasses:
    """`peft`'s model with its adapter loaded, not merged; the softmax of its scores."""

    base: str
    count: int

    def expected(self, folder: Path) -> Any:
        """Scores by text, and the names of the labels."""
        with tempfile.TemporaryDirectory() as alone:
            # Where there is an adapter beside the weights, transformers would load it too.
            for name in ("config.json", "model.safetensors"):
                shutil.copyfile(folder / self.base / name, Path(alone) / name)
            base = transformers.AutoModelForSequenceClassification.from_pretrained(
                alone, num_labels=self.count, dtype=torch.float32
            )
        model = peft.PeftModel.from_pretrained(base, str(folder)).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        rows = []
        for text in TEXTS:
            with torch.no_grad():
                made = model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=512))
            rows.append(made.logits[0].softmax(-1))
        return torch.stack(rows), [base.config.id2label[number] for number in range(self.count)]

    def compare(self, session: Session, expected: Any) -> float:
        """The largest difference of the scores."""
        scores, names = expected
        found = session.text.classify(TEXTS, truncate=True)
        rows = torch.tensor([[one.scores[name] for name in names] for one in found])
        return close_scores(rows, scores, "scores")


_ROBERTA = Model("RobertaModel", "roberta", ROBERTA, OLD_KEYS)
_BASE = TextFolder(
    Model("RobertaForSequenceClassification", "roberta", {**ROBERTA, **labels(("no", "yes"))}), byte_pairs
)
_HEAD = {
    "classifier.dense.weight": (64, 64),
    "classifier.dense.bias": (64,),
    "classifier.out_proj.weight": (2, 64),
    "classifier.out_proj.bias": (2,),
}

ADAPTERS: tuple[Layout, ...] = (
    _adapter(
        "a LoRA classifier on FacebookAI/roberta-base, its base in a folder inside",
        _Adapter(_BASE, ("query", "value"), "SEQ_CLS", "base", _HEAD, at="base"),
        AdaptedClasses("base", 2),
    ),
    _adapter(
        "a LoRA classifier beside the weights of its base",
        _Adapter(_BASE, ("query", "key", "value"), "SEQ_CLS", "FacebookAI/roberta-base", _HEAD),
        AdaptedClasses(".", 2),
    ),
    _adapter(
        "a LoRA adapter whose base is not here",
        _Adapter(_BASE, ("query", "value"), "SEQ_CLS", "FacebookAI/no-such-base", _HEAD, alone=True),
        refused="no-such-base|--base-model",
        why="the base cannot be found",
    ),
)


@dataclass(frozen=True)
class _Files:
    """A folder of files alone: text, JSON or bytes."""

    files: Mapping[str, Any]

    def __call__(self, folder: Path) -> None:
        """Write them."""
        for name, content in self.files.items():
            if isinstance(content, bytes):
                (folder / name).write_bytes(content)
            else:
                write(folder / name, content)


@dataclass(frozen=True)
class _Renamed:
    """A folder whose weights have the names that the model's own code gives them."""

    inner: Builder
    names: Mapping[str, str]

    def __call__(self, folder: Path) -> None:
        """Write it."""
        from safetensors.torch import load_file

        self.inner(folder)
        path = folder / "model.safetensors"
        tensors = load_file(path)
        for old, new in self.names.items():
            tensors = {name.replace(old, new): value for name, value in tensors.items()}
        save_file(tensors, str(path), metadata={"format": "pt"})


def _quantised(method: str, **keys: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, **keys}}


_BERT = Model("BertModel", "bert", keys=OLD_KEYS)
_GLOVE = [
    {"idx": 0, "name": "0", "path": "0_WordEmbeddings", "type": "sentence_transformers.models.WordEmbeddings"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
_OWN = "own code|Python code|trust-remote-code"
_NEW, _FLASH = "Alibaba-NLP/new-impl--", "jinaai/xlm-roberta-flash-implementation--"
_SCORES = "ForSequenceClassification"

REFUSED: tuple[Layout, ...] = (
    _refused(
        "sentence-transformers/average_word_embeddings_glove.6B.300d",
        _Files(
            {
                "modules.json": _GLOVE,
                "0_WordEmbeddings/wordembedding_config.json": {"tokenizer_class": "WhitespaceTokenizer"},
                "1_Pooling/config.json": dict(pooling("mean_tokens", 300).config),
            }
        ),
        refused="WordEmbeddings|config.json",
        why="it has no transformer",
    ),
    _refused(
        "Alibaba-NLP/gte-base-en-v1.5",
        SentenceFolder(
            Model(
                "NewModel",
                "bert",
                keys={
                    "model_type": "new",
                    "auto_map": {
                        "AutoConfig": f"{_NEW}configuration.NewConfig",
                        "AutoModel": f"{_NEW}modeling.NewModel",
                    },
                },
                cls="BertModel",
            ),
            partial(word_pieces, length=32768),
            Sentence((pooling("cls_token", modes=4),), 8192),
        ),
        refused=_OWN,
        why="the model is its own code",
    ),
    _refused(
        "Alibaba-NLP/gte-Qwen2-1.5B-instruct",
        SentenceFolder(
            Model(
                "Qwen2ForCausalLM",
                "qwen2",
                keys={
                    "auto_map": {
                        "AutoModel": "modeling_qwen.Qwen2Model",
                        "AutoModelForCausalLM": "modeling_qwen.Qwen2ForCausalLM",
                    }
                },
                cls="Qwen2Model",
            ),
            qwen_pairs,
            Sentence((pooling("lasttoken"), NORMALIZE), 8192, settings=version_3()),
        ),
        refused=_OWN,
        why="its own code looks both ways, transformers' class does not",
    ),
    _refused(
        "NovaSearch/stella_en_400M_v5",
        SentenceFolder(
            Model(
                "NewModel",
                "bert",
                keys={
                    "model_type": "new",
                    "auto_map": {"AutoConfig": "configuration.NewConfig", "AutoModel": "modeling.NewModel"},
                },
                cls="BertModel",
            ),
            word_pieces,
            Sentence((MEAN, Stage("Dense", {"in_features": 64, "out_features": 64, "bias": True})), 512),
        ),
        refused=_OWN,
        why="the model is its own code",
    ),
    _refused(
        "jinaai/jina-embeddings-v2-base-en",
        SentenceFolder(
            Model(
                "JinaBertForMaskedLM",
                "bert",
                keys={
                    "auto_map": {
                        "AutoConfig": "jinaai/jina-bert-implementation--configuration_bert.JinaBertConfig",
                        "AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel",
                        "AutoModelForMaskedLM": "jinaai/jina-bert-implementation--modeling_bert.JinaBertForMaskedLM",
                    },
                    "position_embedding_type": "alibi",
                    "feed_forward_type": "geglu",
                },
                cls="BertModel",
            ),
            partial(word_pieces, length=8192),
            Sentence((MEAN,), 8192),
        ),
        refused=_OWN,
        why="its own code has other positions than BERT",
    ),
    _refused(
        "jinaai/jina-embeddings-v3",
        SentenceFolder(
            Model(
                "XLMRobertaModel",
                "xlm-roberta",
                ROBERTA,
                {
                    "auto_map": {
                        "AutoConfig": f"{_FLASH}configuration_xlm_roberta.XLMRobertaFlashConfig",
                        "AutoModel": f"{_FLASH}modeling_lora.XLMRobertaLoRA",
                    },
                    "lora_adaptations": ["retrieval.query", "retrieval.passage"],
                },
            ),
            unigrams,
            Sentence(
                (Stage("Pooling", pooling("mean_tokens").config), NORMALIZE),
                None,
                first="custom_st.Transformer",
                prefix="",
            ),
        ),
        refused=_OWN + "|custom_st",
        why="its first module is its own code",
    ),
    _refused(
        "jinaai/jina-reranker-v2-base-multilingual",
        _Renamed(
            TextFolder(
                Model(
                    "XLMRobertaForSequenceClassification",
                    "xlm-roberta",
                    {**ROBERTA, **labels(("LABEL_0",))},
                    {
                        "auto_map": {
                            "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
                            f"AutoModel{_SCORES}": f"modeling_xlm_roberta.XLMRoberta{_SCORES}",
                        },
                        "use_flash_attn": True,
                    },
                ),
                unigrams,
            ),
            {"encoder.layer": "encoder.layers", "attention.self": "mixer"},
        ),
        refused=_OWN,
        why="the model is its own code",
    ),
    _refused(
        "microsoft/trocr-base-printed",
        MediaFolder(
            Model(
                "VisionEncoderDecoderModel",
                "vision-encoder-decoder",
                {
                    "encoder": {"model_type": "vit", "image_size": 384},
                    "decoder": {"model_type": "trocr", "is_decoder": True, "add_cross_attention": True},
                },
            ),
            processor("ViTImageProcessor", square(384)),
        ),
        refused="writes a text",
        why="it writes text",
    ),
    _refused(
        "timm/resnet50.a1_in1k",
        _Files(
            {
                "config.json": {
                    "architecture": "resnet50",
                    "num_classes": 1000,
                    "pretrained_cfg": {"input_size": [3, 224, 224], "tag": "a1_in1k"},
                },
                "model.safetensors": b"",
            }
        ),
        refused="timm",
        why="it is a model of another library",
    ),
    _refused(
        "Qwen/Qwen3-Embedding-0.6B-GGUF",
        _Files({"Qwen3-Embedding-0.6B-Q8_0.gguf": b"GGUF\3\0\0\0", "params": "{}"}),
        refused="--gguf Qwen3",
        why="a GGUF file is named by an option",
    ),
    _refused(
        "TheBloke/Mistral-7B-Instruct-v0.2-AWQ",
        TextFolder(
            Model(
                "Qwen3ForCausalLM",
                "qwen3",
                QWEN3,
                _quantised("awq", bits=4, group_size=128, version="gemm", zero_point=True),
            ),
            qwen_pairs,
        ),
        refused="quanti",
        why="its weights are quantised",
    ),
    _refused(
        "speechbrain/spkrec-ecapa-voxceleb",
        _Files({"hyperparams.yaml": "sample_rate: 16000\n", "embedding_model.ckpt": b"x", "config.json": {}}),
        refused="model_type|config.json",
        why="it is a model of another library",
    ),
    _refused(
        "sentence-transformers/all-MiniLM-L6-v2 with weights in .bin alone",
        _Files({"pytorch_model.bin": b"x", "config.json": {"model_type": "bert", "architectures": ["BertModel"]}}),
        refused="pickle|safetensors|pytorch_model.bin",
        why="pickled weights run code",
    ),
    _refused(
        "sentence-transformers/clip-ViT-B-32",
        _Files(
            {
                "modules.json": [
                    {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
                ],
                "0_CLIPModel/config.json": json.dumps({"model_type": "clip", "architectures": ["CLIPModel"]}),
            }
        ),
        refused="CLIPModel",
        why="it embeds two kinds of input",
    ),
)

LAYOUTS = (*ADAPTERS, *REFUSED)
