"""Read `modules.json`: the modules of a sentence-transformers folder, and the kind of model that they make.

`expect_supported` refuses kinds that are not supported and classes that are not the library's (the model's own code).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from exporter.loading import known_settings, pylate_settings
from exporter.loading.settings import Settings
from runtime.errors import CheckpointError, RemoteCodeError

# The modules that may follow the pooling.
FOLLOWING = ("Dense", "LayerNorm", "Normalize", "Dropout")
# First modules that are no transformer → what they look up.
_WITHOUT_MODEL = {
    "WordEmbeddings": "vectors of words",
    "BoW": "weights of words",
    "StaticEmbedding": "vectors of tokens",
}
_TOKENS = "export with --task feature-extraction for the vectors of tokens, and compute the rest yourself"
# Those that may follow the transformer of a model of token vectors.
TOKEN_MODULES = ("Dense", "Normalize", "MultiVectorMask")
# Those of a decoder that reranks.
_DECODER = ["Transformer", "LogitScore"]
# The library's class for the whole model → the task of this exporter that computes what it computes.
_TASKS = {
    "CrossEncoder": "text-classification",
    "SparseEncoder": "sparse-embedding",
    "MultiVectorEncoder": "token-embedding",
}


@dataclass(frozen=True)
class Module:
    """One module: its class and the folder of its files.

    `kind` is the class name without its package if it is the `library`'s, else the full name. `path` is "" if the
    files are beside `modules.json`.
    """

    kind: str
    path: str
    library: bool

    @property
    def config(self) -> str:
        """The name of its settings file."""
        return f"{self.path}/config.json" if self.path else "config.json"


@dataclass(frozen=True)
class Modules:
    """The modules in order, and the library's class for the whole model.

    `towers`: the first module is a model with a tower for texts and one for images (CLIP). `pylate`: PyLate
    saved the folder; what follows its linear layers is not listed.
    """

    listed: tuple[Module, ...]
    model_type: str
    towers: bool = False
    pylate: bool = False

    @property
    def task(self) -> str:
        """The task of this exporter that computes what the whole model computes, or what it computes for texts."""
        if self.towers:
            return "text-embedding"
        if self.scores_tokens:
            return "reranking"
        return _TASKS.get(self.model_type, "sentence-embedding")

    @property
    def scores_tokens(self) -> bool:
        """Whether the model reranks by what a decoder says to a few tokens."""
        return self.model_type == "CrossEncoder" and [module.kind for module in self.listed] == _DECODER

    @property
    def own_code(self) -> bool:
        """Whether a module is the model's own code."""
        return any(not module.library for module in self.listed)

    def computed_by(self, task: str) -> bool:
        """Whether that task computes what the whole model computes: `task`, the one for a single label, or images."""
        if self.towers:
            return task in ("text-embedding", "image-embedding")
        return task == self.task or (task == "reranking" and self.model_type == "CrossEncoder")

    @property
    def kinds(self) -> str:
        """The modules' classes, for messages."""
        return ", ".join(module.kind for module in self.listed) or "nothing"

    @property
    def model_path(self) -> str:
        """The folder of config.json, weights and tokenizer; older releases gave the transformer a folder of its own."""
        first = self.listed[0] if self.listed else None
        known = first is not None and first.kind.rpartition(".")[2].endswith(("Transformer", "CLIPModel"))
        return first.path if first is not None and known else ""


def read_modules(settings: Settings) -> Modules | None:
    """The folder's modules, supported or not; None if it has no modules.json.

    Raises:
        CheckpointError: the file is damaged, or a path leads out of the folder.
    """
    listed = settings.files.read_json("modules.json")
    if listed is None:
        return None
    place = f"modules.json of {settings.files.id}"
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise CheckpointError(f"{place} is damaged", "a list of modules with name, type and path", "copy it again")
    entries = [settings.check("modules.json", entry, known_settings.MODULE) for entry in listed]
    names = [str(entry.get("name")) for entry in entries]
    if len(set(names)) < len(names):
        # The library would keep only the last of them.
        raise CheckpointError(f"{place} gives two modules the same name", "a name for each", "correct the file")
    modules = tuple(_module(place, entry) for entry in entries)
    model = settings.files.read_json("config_sentence_transformers.json")
    # Older folders do not have the key.
    model_type = model.get("model_type", "SentenceTransformer") if isinstance(model, dict) else "SentenceTransformer"
    if model_type == "SentenceTransformer" and any(module.kind == "SpladePooling" for module in modules):
        model_type = "SparseEncoder"
    if model_type == pylate_settings.MODEL_TYPE:
        known = pylate_settings.MODULES
        modules = tuple(
            replace(one, kind=known[one.kind], library=True) if one.kind in known else one for one in modules
        )
        return Modules(modules, "MultiVectorEncoder", pylate=True)
    towers = model_type == "SentenceTransformer" and bool(modules) and _has_towers(settings, modules[0])
    return Modules(modules, str(model_type), towers)


def _has_towers(settings: Settings, first: Module) -> bool:
    """Whether a folder's first module has towers: an old CLIPModel, or a Transformer whose settings say so."""
    if first.kind != "Transformer":
        return first.kind == "CLIPModel"
    found = settings.files.read_json("/".join(filter(None, (first.path, "sentence_bert_config.json"))))
    config = found.get("modality_config") if isinstance(found, dict) else None
    text = config.get("text") if isinstance(config, dict) else None
    return isinstance(text, dict) and text.get("method") == "get_text_features"


def expect_supported(place: str, modules: Modules, trusted: bool = False) -> None:
    """Check that a file can compute what the modules compute.

    Args:
        place: the model, for messages.
        modules: the folder's.
        trusted: whether the model's own code may run.

    Raises:
        CheckpointError: they are not.
        RemoteCodeError: one is not the library's.
    """
    kinds = [module.kind for module in modules.listed]
    own = next((module.kind for module in modules.listed if not module.library), None)
    if own is not None and own.startswith("sentence_transformers."):
        raise CheckpointError(
            f"modules.json of {place} names {own}, a module of sentence-transformers that this exporter does not "
            "support",
            f"modules such as {known_settings.PACKAGES[0]}.Pooling",
            _TOKENS,
        )
    if own is not None and not trusted:
        raise RemoteCodeError(
            f"modules.json of {place} names {own}: the model's own code, not a module of sentence-transformers",
            "the option --trust-remote-code, which lets it run here with your rights",
            f"read that code first; or {_TOKENS}",
        )
    if own is not None:
        if kinds[0] != "Transformer" or modules.model_type != "SentenceTransformer":
            raise CheckpointError(
                f"modules.json of {place} describes a {modules.model_type} of {modules.kinds}",
                "a SentenceTransformer whose own code stands behind a Transformer of the library",
                _TOKENS,
            )
        return
    if modules.model_type == "CrossEncoder":
        if kinds not in (["Transformer"], _DECODER):
            raise CheckpointError(
                f"modules.json of {place} describes a cross encoder of {modules.kinds}",
                "one of a Transformer alone, which classifies texts, or of a Transformer and LogitScore",
                "this kind of reranker is not supported yet",
            )
        return
    if modules.model_type == "SparseEncoder":
        if kinds not in (["Transformer", "SpladePooling"], ["MLMTransformer", "SpladePooling"]):
            raise CheckpointError(
                f"modules.json of {place} describes a SparseEncoder of {modules.kinds}",
                "one of a Transformer or MLMTransformer and SpladePooling",
                "this kind of sparse model is not supported; a part of it can be exported from the part's own folder",
            )
        return
    if modules.model_type == "MultiVectorEncoder":
        behind = ("Dense",) if modules.pylate else TOKEN_MODULES
        known = kinds[:1] == ["Transformer"] and all(kind in behind for kind in kinds[1:])
        if not known or kinds.count("MultiVectorMask") > 1:
            raise CheckpointError(
                f"modules.json of {place} describes a MultiVectorEncoder of {modules.kinds}",
                f"Transformer, then any of {', '.join(TOKEN_MODULES)}, the last at most once",
                _TOKENS,
            )
        return
    if modules.model_type != "SentenceTransformer":
        raise CheckpointError(
            f"modules.json of {place} describes a {modules.model_type} of {modules.kinds}",
            "a SentenceTransformer, a CrossEncoder, a SparseEncoder or a MultiVectorEncoder",
            "this kind of model is not supported yet",
        )
    if modules.towers:
        if not all(kind in FOLLOWING for kind in kinds[1:]):
            raise CheckpointError(
                f"modules.json of {place} lists {modules.kinds}",
                f"{kinds[0]}, then any of {', '.join(FOLLOWING)}",
                "export the first module's folder alone",
            )
        return
    table = _WITHOUT_MODEL.get(kinds[0]) if kinds else None
    if table is not None:
        raise CheckpointError(
            f"modules.json of {place} lists {modules.kinds}: {table} from a table, and no transformer",
            "a Transformer as the first module",
            "look the vectors up with sentence-transformers, or choose a model with a transformer, such as "
            "sentence-transformers/all-MiniLM-L6-v2",
        )
    if kinds[:2] != ["Transformer", "Pooling"] or not all(kind in FOLLOWING for kind in kinds[2:]):
        raise CheckpointError(
            f"modules.json of {place} lists {modules.kinds}",
            f"Transformer, Pooling, then any of {', '.join(FOLLOWING)}",
            _TOKENS,
        )


def _module(place: str, entry: dict[str, Any]) -> Module:
    name = entry.get("type")
    if not isinstance(name, str):
        raise CheckpointError(
            f"{place} has a module of type {name!r}", "the dotted name of a class", "correct the file"
        )
    package, _, kind = name.rpartition(".")
    library = kind in known_settings.MODULES and package in _packages(kind)
    return Module(kind if library else name, _path(place, entry.get("path")), library)


def _packages(kind: str) -> set[str]:
    """Where the library has had the class over its releases: in a package, or in one of its files."""
    return {
        place
        for package in known_settings.PACKAGES
        for place in (package, f"{package}.{kind}", f"{package}.{known_settings.MODULES[kind]}")
    }


def _path(place: str, path: Any) -> str:
    """Check, by the library's own rule, that the path stays inside the model's folder."""
    if isinstance(path, str):
        windows = PureWindowsPath(path)
        if not windows.anchor and ".." not in windows.parts and "\0" not in path:
            return "/".join(PurePosixPath(path).parts)
    raise CheckpointError(f"{place} has a module at {path!r}"[:200], "a folder inside the model's", "correct the file")
