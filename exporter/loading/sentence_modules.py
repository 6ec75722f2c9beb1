"""Read `modules.json`: which modules of sentence-transformers the folder consists of, and what kind of model they make.

In: a folder's settings. Out: `Modules`, or None where the folder has no such file. Refuses a path that leads out of the
folder; `expect_supported` refuses classes that are not the library's (own code), and kinds that are not supported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from exporter.loading import known_settings
from exporter.loading.hub import read_json
from exporter.loading.settings import Settings
from runtime.errors import CheckpointError, RemoteCodeError

# What may stand behind the pooling.
BEHIND = ("Dense", "LayerNorm", "Normalize", "Dropout")
_TOKENS = "export with --task feature-extraction for the vectors of tokens, and compute the rest yourself"
# What helps with the others: kind of model → remedy.
_REMEDIES = {
    "SparseEncoder": "export with --task fill-mask, and pool its scores over the tokens as the folder's modules say",
    "MultiVectorEncoder": "export with --task feature-extraction, and apply the modules behind the model yourself",
}


@dataclass(frozen=True)
class Module:
    """One module: its class and the folder of its files.

    `kind` is the class without its package where it is the `library`'s, else its full name. `path` is "" where the
    files stand beside `modules.json`.
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
    """The modules in order, and the library's class of the whole."""

    listed: tuple[Module, ...]
    model_type: str

    @property
    def task(self) -> str:
        """The task of this exporter that gives the answers of the whole."""
        return "text-classification" if self.model_type == "CrossEncoder" else "sentence-embedding"

    @property
    def kinds(self) -> str:
        """The modules' classes, for messages."""
        return ", ".join(module.kind for module in self.listed) or "nothing"

    @property
    def model_path(self) -> str:
        """The folder of config.json, weights and tokenizer: older releases gave the transformer one of its own."""
        first = self.listed[0] if self.listed else None
        return first.path if first is not None and first.kind.rpartition(".")[2].endswith("Transformer") else ""


def read_modules(settings: Settings) -> Modules | None:
    """What the folder consists of, whether it is supported or not; None where it has no modules.json.

    Raises:
        CheckpointError: the file is damaged, or a path leads out of the folder.
    """
    listed = read_json(settings.location, "modules.json")
    if listed is None:
        return None
    place = f"modules.json of {settings.location.id}"
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise CheckpointError(f"{place} is damaged", "a list of modules with name, type and path", "copy it again")
    entries = [settings.check("modules.json", entry, known_settings.MODULE) for entry in listed]
    names = [str(entry.get("name")) for entry in entries]
    if len(set(names)) < len(names):
        # The library keeps the last of them alone.
        raise CheckpointError(f"{place} gives two modules the same name", "a name for each", "mend the file")
    modules = tuple(_module(place, entry) for entry in entries)
    model = read_json(settings.location, "config_sentence_transformers.json")
    # Older folders do not say it.
    model_type = model.get("model_type", "SentenceTransformer") if isinstance(model, dict) else "SentenceTransformer"
    return Modules(modules, str(model_type))


def expect_supported(place: str, modules: Modules) -> None:
    """That the modules are ones whose answers a file can give.

    Args:
        place: the model, for messages.
        modules: the folder's.

    Raises:
        CheckpointError: they are not.
        RemoteCodeError: one is not the library's.
    """
    kinds = [module.kind for module in modules.listed]
    own = next((module.kind for module in modules.listed if not module.library), None)
    if own is not None and own.startswith("sentence_transformers."):
        raise CheckpointError(
            f"modules.json of {place} names {own}, which this exporter does not know as a module of "
            "sentence-transformers",
            f"modules such as {known_settings.PACKAGES[0]}.Pooling",
            _TOKENS,
        )
    if own is not None:
        raise RemoteCodeError(
            f"modules.json of {place} names {own}: no module of sentence-transformers, but the model's own code",
            "modules of the library: what own code computes is not read, not even with --trust-remote-code",
            _TOKENS,
        )
    if modules.model_type == "CrossEncoder":
        if kinds != ["Transformer"]:
            raise CheckpointError(
                f"modules.json of {place} describes a cross encoder of {modules.kinds}",
                "one of a Transformer alone, which classifies texts",
                "this kind of reranker is not supported yet",
            )
        return
    sparse = "SpladePooling" in kinds or modules.model_type == "SparseEncoder"
    if sparse or modules.model_type != "SentenceTransformer":
        kind = "SparseEncoder" if sparse else modules.model_type
        raise CheckpointError(
            f"modules.json of {place} describes a {kind} of {modules.kinds}",
            "a SentenceTransformer or a CrossEncoder",
            _REMEDIES.get(kind, "this kind of model is not supported yet"),
        )
    if kinds[:2] != ["Transformer", "Pooling"] or not all(kind in BEHIND for kind in kinds[2:]):
        raise CheckpointError(
            f"modules.json of {place} lists {modules.kinds}",
            f"Transformer, Pooling, and behind them any of {', '.join(BEHIND)}",
            _TOKENS,
        )


def _module(place: str, entry: dict[str, Any]) -> Module:
    name = entry.get("type")
    if not isinstance(name, str):
        raise CheckpointError(f"{place} has a module of type {name!r}", "the dotted name of a class", "mend the file")
    package, _, kind = name.rpartition(".")
    library = kind in known_settings.MODULES and package in _homes(kind)
    return Module(kind if library else name, _path(place, entry.get("path")), library)


def _homes(kind: str) -> set[str]:
    """Where the library has had the class: in a package, or in a file of one, which older releases named like it."""
    return {
        home
        for package in known_settings.PACKAGES
        for home in (package, f"{package}.{kind}", f"{package}.{known_settings.MODULES[kind]}")
    }


def _path(place: str, path: Any) -> str:
    """A folder inside the model's, by the library's own rule."""
    if isinstance(path, str):
        windows = PureWindowsPath(path)
        if not windows.anchor and ".." not in windows.parts and "\0" not in path:
            return "/".join(PurePosixPath(path).parts)
    raise CheckpointError(f"{place} has a module at {path!r}"[:200], "a folder inside the model's", "mend the file")
