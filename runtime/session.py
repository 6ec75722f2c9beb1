"""Session: named tensors in, named tensors out.

In: the path of an artifact; then tensors by name. Out: a dict of tensors in the manifest's order. Refuses
files and machines that do not fit (before torch reads the file), and inputs that do not fit.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch

from runtime import input_validation
from runtime.artifact import artifact_file, operator_lists
from runtime.artifact.zip_reader import Archive
from runtime.errors import ArtifactFailedError, InputTextError, ThreadCountError
from runtime.format.manifest import TOKENIZER_FILE, Manifest, TensorSpec
from runtime.host import allocator, forking, ipex_library, requirements
from runtime.host.torchscript import FAILURES, ScriptModule, optimising
from runtime.printing import shown

if TYPE_CHECKING:
    from runtime.text import Text, TextEncoder


MAX_THREADS_PER_PROCESSOR = 8


class Session:
    """A loaded artifact. Safe to call from several threads: a call changes nothing in it.

    Args:
        module: what `artifact_file.load` returned, its operators registered.
        manifest: what the file says of itself.
        tokenizer: the content of `tokenizer.json`, where the artifact has one.
    """

    def __init__(self, module: ScriptModule, manifest: Manifest, tokenizer: bytes | None = None) -> None:
        self.manifest = manifest
        self._module = module
        self._tokenizer = tokenizer
        self._threads = torch.get_num_threads()
        self._process = forking.process()
        self._names = [spec.name for spec in manifest.outputs]

    def __call__(self, /, **inputs: Any) -> dict[str, torch.Tensor]:
        """Run the model once.

        Args:
            **inputs: torch tensors or NumPy arrays, named, typed and shaped as in `manifest.inputs`.
                Inputs with a fill value may be left out. They are never written to.

        Returns:
            float32 tensors by name, in the order of `manifest.outputs`.

        Raises:
            InputError: one of its branches, naming the input, what was found and what was expected.
            ArtifactFailedError: the model failed, or memory ran out.
            ThreadCountError: if torch's thread count changed since an IPEX artifact was loaded.
            ForkError: the process was forked after loading, and torch uses several threads.
        """
        forking.check_session(self._process, torch.get_num_threads())
        tensors = input_validation.arrange(self.manifest.inputs, inputs)
        if self.manifest.requires.ipex is not None and torch.get_num_threads() != self._threads:
            # IPEX packs weights for a thread count; its documentation warns of wrong results after a change.
            raise ThreadCountError(
                f"torch uses {torch.get_num_threads()} threads now",
                f"{self._threads}, for which the weights were packed",
                "call torch.set_num_threads before runtime.load, or load the artifact again",
            )
        # Not inference mode: its tensors refuse to be changed in place, or to enter autograd, later on.
        try:
            with torch.no_grad(), optimising(self.manifest.execution.optimized_execution):
                outputs = self._module(*tensors)
            named = dict(zip(self._names, outputs, strict=True))
            if not all(isinstance(output, torch.Tensor) for output in named.values()):
                raise TypeError("an output that is no tensor")
            return named
        # Also outputs that are not as many as the manifest says, or no tensors.
        except FAILURES as error:
            shapes = ", ".join(
                f"{spec.name} {list(t.shape)}" for spec, t in zip(self.manifest.inputs, tensors, strict=True)
            )
            raise ArtifactFailedError(
                f"the model failed on {shapes}: {_reason(error)}",
                "an answer, since the manifest admits these inputs",
                "run run-model check; export the model again if it fails too, use smaller batches if memory ran out",
            ) from error

    def warm_up(self) -> None:
        """Make the calls that the manifest asks for: TorchScript and oneDNN prepare during the first ones."""
        for shape in self.manifest.execution.warmup_shapes:
            inputs = placeholders(self.manifest, shape)
            for _ in range(self.manifest.execution.warmup_calls):
                self(**inputs)

    @property
    def text(self) -> Text:
        """Texts in, answers out, with the tokenizer stored in the artifact.

        Raises:
            InputTextError: if the artifact has no tokenizer.
            ExtraMissingError: if the package `tokenizers` is not installed.
        """
        from runtime.text import Text

        # Made anew: kept, it and the session would hold each other, and the weights, until a garbage collection.
        return Text(self, self.manifest, self._encoder)

    @functools.cached_property
    def _encoder(self) -> TextEncoder:
        from runtime.text import TextEncoder

        if self.manifest.text is None or self._tokenizer is None:
            raise InputTextError(
                "this artifact holds no tokenizer",
                "one, to take text",
                "pass tensors, or export from a folder that has a tokenizer",
            )
        names = [spec.name for spec in self.manifest.inputs]
        return TextEncoder(self._tokenizer, self.manifest.text, names, self.manifest.sequence)


def load(
    path: artifact_file.Source | Archive,
    *,
    threads: int | None = None,
    warmup: bool = True,
    sha256: str | None = None,
    verify_key: artifact_file.PathLike | None = None,
    allow_operators: Collection[str] = (),
) -> Session:
    """Open an artifact.

    Args:
        path: the file that `export-model` wrote; or its content as bytes, or a file object opened for reading in
            binary, of which a copy is checked and loaded (`runtime.artifact.opening`).
        threads: sets torch's thread count for the whole process first; None leaves it.
        warmup: make the warm-up calls, so that the first real call is as fast as the rest.
        sha256: the digest that the whole file must have, in hexadecimal, compared before anything is read from it.
        verify_key: a file with the public key whose owner must have signed the artifact.
        allow_operators: names such as `aten::segment_reduce`: operators that the file may call though they are not on
            the list (docs/operators.md). Some read or write any memory of the process that the file asks for, or files:
            give names only for files whose author you trust.

    Raises:
        ArtifactError: the file is missing, damaged or of a newer format.
        RequirementError: torch, IPEX, the processor or the thread count do not fit, or `allow_operators` names no
            operator; nothing was loaded.
        KeyFileError: the key cannot be read.
    """
    # Opened once: whoever replaces the file meanwhile does not mix two artifacts.
    with artifact_file.opened(path) as archive:
        manifest = admit(archive, threads=threads, sha256=sha256, verify_key=verify_key)
        with artifact_file.verifying_parts(archive, manifest):
            session = open_module(archive, manifest, allow_operators)
    if warmup:
        session.warm_up()
    allocator.give_back_memory()
    return session


def admit(
    archive: Archive,
    *,
    threads: int | None = None,
    sha256: str | None = None,
    verify_key: artifact_file.PathLike | None = None,
) -> Manifest:
    """All that `load` checks before the file's parts, and the thread count that it sets."""
    if sha256 is not None:
        artifact_file.check_sha256(archive, sha256)
    manifest = artifact_file.read_manifest(archive)
    if verify_key is not None:
        artifact_file.check_signature(archive, verify_key)
    requirements.check(manifest, requirements.detect())
    _set_threads(threads)
    return manifest


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        # More threads than that never help, and thousands hang the OpenMP runtime.
        most = MAX_THREADS_PER_PROCESSOR * (os.cpu_count() or 1)
        # `True` is an int to Python, and no thread count to torch.
        if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= most:
            raise ThreadCountError(
                f"threads is {shown(threads)}", f"a whole number from 1 to {most}, for this machine's processors"
            )
        torch.set_num_threads(threads)
    forking.check_load(torch.get_num_threads())


def open_module(
    source: artifact_file.Source | Archive, manifest: Manifest, allow_operators: Collection[str] = ()
) -> Session:
    """A session on the file's code under a given manifest; `load` without its checks and its warm-up."""
    allowed = operator_lists.check_names(allow_operators)
    allocator.keep_memory_between_calls()
    if manifest.requires.ipex is not None:
        ipex_library.register_ipex()
    operator_lists.check_known(allowed)
    with artifact_file.opened(source) as archive:
        module = artifact_file.load(archive, allowed)
        tokenizer = artifact_file.read_part(archive, TOKENIZER_FILE)
    if hasattr(module, "prepare"):
        # Brings the weights into the processor's own order (runtime/format/manifest.py, THE FORMAT).
        try:
            module.prepare()
        except FAILURES as error:
            raise ArtifactFailedError(
                f"the weights could not be prepared for this processor: {_reason(error)}",
                "a method prepare that runs without inputs",
                "run run-model check; export the model again if it fails too",
            ) from error
    return Session(module, manifest, tokenizer)


def _reason(error: Exception) -> str:
    """The last line of what PyTorch says; the lines before it are its stack."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1][:200]


def placeholders(manifest: Manifest, shape: dict[str, int]) -> dict[str, torch.Tensor]:
    """Inputs of one shape that the manifest admits, without padding: for warm-up and for timing."""
    return {spec.name: _placeholder(spec, shape) for spec in manifest.inputs}


def _placeholder(spec: TensorSpec, shape: dict[str, int]) -> torch.Tensor:
    size = [shape.get(axis.name, axis.minimum) for axis in spec.axes]
    if spec.dtype == "float32":
        return torch.zeros(size)
    if spec.fill is not None:
        return torch.full(size, spec.fill)
    # The middle of the vocabulary: special tokens stand at its ends.
    middle = (spec.values.minimum + spec.values.maximum) // 2 if spec.values else 0
    tensor = torch.full(size, middle)
    if spec.required_token_id is not None:
        if middle == spec.required_token_id:
            tensor += 1
        tensor[..., -1] = spec.required_token_id
    return tensor
