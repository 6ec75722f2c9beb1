"""Load an artifact and call it: named tensors in, named tensors out.

The file and the machine are checked before torch reads the file; inputs are checked at each call.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch

from runtime import input_validation, preprocessing
from runtime.artifact import artifact_file, operator_lists
from runtime.artifact.zip_reader import Archive
from runtime.errors import (
    ArtifactFailedError,
    InputTaskError,
    InputTextError,
    ManifestDamagedError,
    ThreadCountError,
)
from runtime.format.manifest import TOKENIZER_FILE, Manifest, TensorSpec
from runtime.generation.cache import check_call
from runtime.host import allocator, forking, ipex_library, native_library, requirements
from runtime.host.torchscript import FAILURES, ScriptModule, optimized_execution
from runtime.printing import shown

if TYPE_CHECKING:
    from runtime.audio import Audio
    from runtime.image import Image
    from runtime.text import Text, TextEncoder


MAX_THREADS_PER_PROCESSOR = 8


class Session:
    """A loaded artifact. Safe to call from several threads: a call changes nothing in it.

    Args:
        module: the result of `artifact_file.load`; the operators it needs are registered.
        manifest: the artifact's manifest.
        tokenizer: the content of `tokenizer.json`, if the artifact has one.
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
            InputError: an input does not fit; the subclass says how.
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
        # Not inference mode: its tensors could later not be changed in place or enter autograd.
        try:
            with torch.no_grad(), optimized_execution(self.manifest.execution.optimized_execution):
                outputs = self._module(*tensors)
            named = dict(zip(self._names, outputs, strict=True))
            if not all(isinstance(output, torch.Tensor) for output in named.values()):
                raise TypeError("an output is not a tensor")
            return named
        # This includes outputs that are not tensors, or not as many as the manifest says.
        except FAILURES as error:
            shapes = ", ".join(
                f"{spec.name} {list(t.shape)}" for spec, t in zip(self.manifest.inputs, tensors, strict=True)
            )
            raise ArtifactFailedError(
                f"the model failed on {shapes}: {_reason(error)}",
                "outputs, since the manifest admits these inputs",
                "run `run-model check`, and export again if it fails too; if memory ran out, use smaller batches",
            ) from error

    def decode(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        kept: torch.Tensor,
        caches: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Read some tokens of each row, with what was read before in the caches, which are written to.

        Args:
            input_ids: int64 [rows, tokens].
            positions: int64 [rows, tokens], where each token stands in its row, from 0 on.
            kept: int64 [rows, kept], the numbers within this call of the tokens whose logits are wanted.
            caches: keys and values, as `manifest.generation.caches` describes them, of one length; new ones hold zeros.
                Calls with different caches may be made from different threads.

        Returns:
            Logits of float32, [rows, kept, vocabulary].

        Raises:
            InputError: an argument does not fit, or the artifact does not generate text.
            ArtifactFailedError: the model failed, or memory ran out.
            ForkError: as for calls.
        """
        forking.check_session(self._process, torch.get_num_threads())
        info = self.manifest.generation
        if info is None:
            raise InputTaskError(f"decode on an artifact for {self.manifest.task}", "one for text-generation")
        values = self.manifest.inputs[0].values
        vocabulary = 1 + (values.maximum if values is not None else 2**31)
        check_call(info, vocabulary, input_ids, positions, kept, caches)
        expected = (input_ids.shape[0], kept.shape[1])
        try:
            with torch.no_grad(), optimized_execution(self.manifest.execution.optimized_execution):
                (logits,) = self._module.decode(input_ids, positions, kept, *caches)
            if logits.dtype != torch.float32 or logits.dim() != 3 or tuple(logits.shape[:2]) != expected:
                raise TypeError("the output is no float32 tensor of the rows and tokens that were asked for")
        except FAILURES as error:
            raise ArtifactFailedError(
                f"the model failed on {list(input_ids.shape)} tokens with caches of {caches[0].shape[2]}: "
                f"{_reason(error)}",
                "logits, since the manifest admits these inputs",
                "run `run-model check`, and export again if it fails too; if memory ran out, use fewer rows",
            ) from error
        found: torch.Tensor = logits
        return found

    def preprocess(self, value: Any) -> dict[str, torch.Tensor]:
        """The model's inputs for one row, made of a picture or a sound as the model's own processor does.

        Args:
            value: a torch tensor or NumPy array: a picture of uint8 [height, width, channels], or a sound of float32
                [samples] at the artifact's rate; `manifest.preprocessing` says which of the two.

        Raises:
            InputError: it does not fit, what is made of it does not fit the model, or the artifact makes no inputs.
            ArtifactFailedError: the artifact's method failed.
            ForkError: as for calls.
        """
        forking.check_session(self._process, torch.get_num_threads())
        return preprocessing.preprocess(self._module, self.manifest, value)

    def warm_up(self) -> None:
        """Make the calls that the manifest asks for: TorchScript and oneDNN prepare during the first ones."""
        for shape in self.manifest.execution.warmup_shapes:
            inputs = placeholders(self.manifest, shape)
            for _ in range(self.manifest.execution.warmup_calls):
                self(**inputs)

    @property
    def text(self) -> Text:
        """Methods that take text, with the tokenizer stored in the artifact.

        Raises:
            InputTextError: if the artifact has no tokenizer.
            ExtraMissingError: if the package `tokenizers` is not installed.
        """
        from runtime.text import Text

        # Made at each use: if it were kept, a reference cycle would hold the weights until a garbage collection.
        return Text(self, self.manifest, self._encoder, self.decode)

    @property
    def audio(self) -> Audio:
        """Methods that take sounds, with the preprocessing, the decoding and the labels in the artifact.

        Raises:
            InputTaskError: the artifact makes no inputs of sounds.
        """
        from runtime.audio import Audio

        # As for `text`, made at each use.
        return Audio(self, self.preprocess, self.manifest, self._join)

    def _join(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens too."""
        return self._encoder.decode(ids, special=True)

    @property
    def image(self) -> Image:
        """Methods that take pictures.

        Raises:
            InputTaskError: the artifact cannot preprocess pictures, or takes more than pictures.
        """
        from runtime.image import Image

        return Image(self, self.preprocess, self.manifest)

    @functools.cached_property
    def _encoder(self) -> TextEncoder:
        from runtime.text import TextEncoder

        if self.manifest.text is None or self._tokenizer is None:
            raise InputTextError(
                "text input needs a tokenizer, which this artifact does not have",
                "",
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
        threads: the thread count of torch, set for the whole process before loading; None leaves it unchanged.
        warmup: make the warm-up calls, so that the first real call is as fast as the rest.
        sha256: the digest that the whole file must have, in hexadecimal, compared before anything is read from it.
        verify_key: a file with the public key of whoever must have signed the artifact.
        allow_operators: names such as `aten::segment_reduce`: operators that the file may call although they are not
            on the list (docs/operators.md). Some of them can read or write any memory of the process, or files, so use
            this only for files whose author you trust.

    Raises:
        ArtifactError: the file is missing, damaged or of another format version.
        RequirementError: torch, IPEX, the processor or the thread count do not fit, or `allow_operators` holds a name
            that is not an operator's; nothing was loaded.
        KeyFileError: the key cannot be read.
    """
    # Opened once: if the file is replaced meanwhile, two artifacts do not get mixed.
    with artifact_file.open_archive(path) as archive:
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
    """Read the manifest, make all checks of `load` that come before those of the file's parts, and set the threads."""
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
        # More threads never help, and thousands hang the OpenMP runtime.
        most = MAX_THREADS_PER_PROCESSOR * (os.cpu_count() or 1)
        # `True` is an int for Python, but not a thread count for torch.
        if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= most:
            raise ThreadCountError(f"threads is {shown(threads)}", f"a whole number from 1 to {most}, on this machine")
        torch.set_num_threads(threads)
    forking.check_load(torch.get_num_threads())


def open_module(
    source: artifact_file.Source | Archive, manifest: Manifest, allow_operators: Collection[str] = ()
) -> Session:
    """A session on the file's code with the given manifest: `load` without its checks and its warm-up."""
    allowed = operator_lists.check_names(allow_operators)
    if manifest.requires.ipex is not None:
        ipex_library.register_ipex()
    if manifest.requires.native is not None:
        native_library.register_native(manifest.requires.native)
    operator_lists.check_known(allowed)
    with artifact_file.open_archive(source) as archive:
        module = artifact_file.load(archive, allowed)
        tokenizer = artifact_file.read_part(archive, TOKENIZER_FILE)
    if hasattr(module, "prepare"):
        # Reorders the weights for this processor (runtime/format/manifest.py, THE FORMAT).
        try:
            module.prepare()
        except FAILURES as error:
            raise ArtifactFailedError(
                f"the weights could not be prepared for this processor: {_reason(error)}",
                "a method `prepare` that runs without inputs",
                "run `run-model check`, and export again if it fails too",
            ) from error
    # After reading and packing: each block that these free goes back to the system at once, and the peak is lower.
    allocator.keep_memory_between_calls()
    if manifest.preprocessing is not None and not hasattr(module, "preprocess"):
        raise ManifestDamagedError(
            "the manifest says that the file makes inputs of data, but it has no method `preprocess`",
            "",
            "export the model again, or copy the file again if it was damaged on the way",
        )
    if manifest.generation is not None and not hasattr(module, "decode"):
        raise ManifestDamagedError(
            "the manifest says that the file generates text, but it has no method `decode`",
            "",
            "export the model again, or copy the file again if it was damaged on the way",
        )
    return Session(module, manifest, tokenizer)


def _reason(error: Exception) -> str:
    """The last line of PyTorch's message; the lines before it are its stack."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1][:200]


def placeholders(manifest: Manifest, shape: dict[str, int]) -> dict[str, torch.Tensor]:
    """Inputs of one shape that the manifest admits, without padding; for warm-up and timing."""
    return {spec.name: _placeholder(spec, shape) for spec in manifest.inputs}


def _placeholder(spec: TensorSpec, shape: dict[str, int]) -> torch.Tensor:
    size = [shape.get(axis.name, axis.minimum) for axis in spec.axes]
    if spec.dtype == "float32":
        return torch.zeros(size)
    if spec.fill is not None:
        return torch.full(size, spec.fill)
    number = spec.values.minimum if spec.values else 0
    if spec.values and any(axis.name.endswith("sequence") for axis in spec.axes):
        # The middle of the vocabulary, since special tokens are at its ends.
        number = (spec.values.minimum + spec.values.maximum) // 2
    tensor = torch.full(size, number)
    if spec.required_token_id is not None:
        if number == spec.required_token_id:
            tensor += 1
        tensor[..., -1] = spec.required_token_id
    return tensor
