"""Every error that this project raises on purpose.

An error's text is one line: what was found, what was expected, what to do.

    ExportedModelError
    ├── ArtifactError                 the file itself
    │   ├── ArtifactNotFoundError         no such file, or not readable
    │   ├── NotAnArtifactError            not a zip archive, cut short, or not TorchScript
    │   ├── UnsafeArchiveError            a zip that two readers could read differently, or that lies about its parts
    │   ├── DigestError                   a part, or the whole file, is not the one that was sealed
    │   ├── OperatorNotAllowedError       its code calls operators that no export contains
    │   ├── ManifestMissingError          a TorchScript file that this exporter did not write
    │   ├── ManifestDamagedError          the manifest or another stored part cannot be understood
    │   ├── ArtifactFailedError           the model in it fails where its manifest says that it works
    │   ├── SignatureError                not signed, or not by the key that was asked for
    │   └── FormatVersionError            written in a format newer than this runtime reads
    ├── RequirementError              this machine or this environment
    │   ├── TorchVersionError             the installed torch does not fit
    │   ├── IpexMissingError              Intel Extension for PyTorch is needed and absent
    │   ├── IpexVersionError              Intel Extension for PyTorch is there and does not fit
    │   ├── NativeLibraryError            the library of this project's operators is absent or does not fit
    │   ├── CpuFeatureError               the processor lacks an instruction set
    │   ├── OperatorNameError             a name in `allow_operators` that is not an operator's
    │   ├── ThreadCountError              the thread count changed after weights were packed for it
    │   ├── ForkError                     the process was forked, and the threads that compute are in its parent
    │   └── ExtraMissingError             a package is needed and absent
    ├── InputError                    what the caller passed to a session
    │   ├── InputNameError                unknown or missing name
    │   ├── InputTypeError                not a tensor, or a dtype that would lose information
    │   ├── InputRankError                wrong number of axes
    │   ├── InputSizeError                empty, too long, or axes that disagree
    │   ├── InputValueError               token ids (or other integers) out of range
    │   ├── InputTextError                text that does not fit the model
    │   ├── InputTaskError                a method of another task than the artifact's
    │   └── InputFileError                a file of inputs that cannot be read
    ├── PoolError                     a pool of sessions
    │   ├── PoolFullError                 its queue holds as many rows as it may
    │   ├── PoolClosedError               it takes no requests any more
    │   └── DeadlineError                 the deadline passed before the request's turn, or its end
    ├── KeyFileError                  a key for signing that cannot be read or is of another kind
    ├── CheckFailedError              an output differs from the stored one by more than the tolerance
    └── ExportError                   an export that cannot be done
        ├── RequestError                  the request contradicts itself
        ├── CalibrationError              the calibration samples cannot be used
        ├── EvaluationError               the file of labelled examples cannot be used
        ├── MetricDropError               the artifact's metric is worse than the model's by more than was allowed
        ├── ModelNotFoundError            no such folder or hub id
        ├── HubUnreachableError           the hub cannot be reached and the cache does not hold the model
        ├── CheckpointError               a folder without a configuration or weights, or damaged ones
        ├── PickledWeightsError           only pickled weights, and they were not allowed
        ├── RemoteCodeError               the model brings its own code, and it was not allowed
        ├── TaskError                     the model has no head for the task, or none can be chosen
        ├── NewHeadError                  the checkpoint lacks weights that the task needs
        ├── ModelFailedError              the original model fails on ordinary inputs
        ├── OutputExistsError             the output is there already
        ├── OutputError                   the output cannot be written
        ├── ForbiddenOperatorError        the model calls operators that files may not call
        ├── BackendError                  the backend is not available here, or failed
        ├── TraceError                    no form of example inputs could be traced
        └── VerificationError             the written file computes wrong outputs
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.printing import printable


class ExportedModelError(Exception):
    """The base class of all errors of this project.

    Args:
        found: what was found, naming the file, input or package.
        expected: what would have been right; empty if `found` already says it.
        remedy: what the user can do, as an imperative.
    """

    def __init__(self, found: str, expected: str = "", remedy: str = "") -> None:
        self.found = found
        self.expected = expected
        self.remedy = remedy
        line = found
        if expected:
            line += f"; expected {expected}"
        if remedy:
            line += f"; {remedy}"
        # The command line promises one line per error. Messages of other packages contain newlines, and file names and
        # an artifact's strings may contain anything.
        super().__init__(printable(" ".join(line.split())))


class ArtifactError(ExportedModelError):
    """Something is wrong with the file itself."""


class ArtifactNotFoundError(ArtifactError):
    """There is no such file, or it cannot be opened."""


class NotAnArtifactError(ArtifactError):
    """The file is not a TorchScript archive, or it was cut short."""


class UnsafeArchiveError(ArtifactError):
    """The zip, or a pickle in it, can be read in two ways or states wrong sizes; no exporter writes such a file."""


class DigestError(ArtifactError):
    """A part, or the whole file, is not the one that was sealed."""


class OperatorNotAllowedError(ArtifactError):
    """The code calls an operator, or names a class, that is not on the list of allowed ones."""


class ManifestMissingError(ArtifactError):
    """The archive holds no manifest: another program wrote it."""


class ManifestDamagedError(ArtifactError):
    """The manifest, or another part stored beside the code, cannot be understood."""


class FormatVersionError(ArtifactError):
    """The file's format is newer than this runtime."""


class SignatureError(ArtifactError):
    """The artifact is not signed, or not by the key that was asked for."""


class ArtifactFailedError(ArtifactError):
    """The model failed on inputs that its manifest admits, or memory ran out."""


class RequirementError(ExportedModelError):
    """This machine or this environment cannot run the artifact."""


class TorchVersionError(RequirementError):
    """The installed torch does not fit the artifact."""


class IpexMissingError(RequirementError):
    """The artifact needs Intel Extension for PyTorch, which is not installed."""


class IpexVersionError(RequirementError):
    """The installed Intel Extension for PyTorch does not fit the artifact or the installed torch."""


class NativeLibraryError(RequirementError):
    """The artifact needs this project's own operators, whose library is absent or does not fit."""


class CpuFeatureError(RequirementError):
    """The processor lacks instructions that the precision needs."""


class ThreadCountError(RequirementError):
    """The thread count is not valid, or changed after the weights were packed for another one."""


class ForkError(RequirementError):
    """The process was forked after loading; the threads that compute, or a pool's threads, exist only in the parent."""


class OperatorNameError(RequirementError):
    """`allow_operators` is not a list of operator names, or the installed torch does not have one of the operators."""


class ExtraMissingError(RequirementError):
    """A package that this call needs is not installed or cannot be imported."""


class InputError(ExportedModelError):
    """An input from the caller does not fit the artifact."""


class InputNameError(InputError):
    """An input name is unknown, or a required input is missing."""


class InputTypeError(InputError):
    """A value is not a tensor, or its dtype cannot be converted without loss."""


class InputRankError(InputError):
    """A tensor has the wrong number of axes."""


class InputSizeError(InputError):
    """An axis is empty, too long, or differs from the same axis of another input."""


class InputValueError(InputError):
    """An integer, such as a token id, lies outside the range that the model knows."""


class InputTextError(InputError):
    """A text does not fit the model: too long, or the artifact takes no text."""


class InputTaskError(InputError):
    """The method is for another task than the artifact's, or needs something that the artifact does not have."""


class InputFileError(InputError):
    """A file of inputs cannot be read."""


class PoolError(ExportedModelError):
    """A pool did not accept a request, or did not answer it."""


class PoolFullError(PoolError):
    """The queue is full: requests arrive faster than the machine answers them."""


class PoolClosedError(PoolError):
    """The pool is closed, or closing."""


class DeadlineError(PoolError):
    """The request's deadline passed before its turn came, or before its text was complete."""


class KeyFileError(ExportedModelError):
    """A key for signing or checking signatures cannot be read, or is of another kind."""


class CheckFailedError(ExportedModelError):
    """An output differs from the stored one, or a call changed its inputs."""


class ExportError(ExportedModelError):
    """An export that cannot be done."""


class RequestError(ExportError):
    """The request contradicts itself or holds a value that is not allowed."""


class CalibrationError(ExportError):
    """The file of calibration samples cannot be read, or does not fit the model."""


class EvaluationError(ExportError):
    """The file of labelled examples, or the task, cannot be evaluated."""


class MetricDropError(ExportError):
    """The artifact's metric is worse than the model's by more than was allowed."""


class ModelNotFoundError(ExportError):
    """There is no such folder, short name or hub id."""


class HubUnreachableError(ExportError):
    """The model hub cannot be reached, and its cache does not hold the model."""


class CheckpointError(ExportError):
    """A model folder lacks its configuration or weights, or they are damaged."""


class PickledWeightsError(ExportError):
    """The weights come only as a pickle, and `allow_pickle` was not given."""


class RemoteCodeError(ExportError):
    """The model brings its own Python code, and `trust_remote_code` was not given."""


class TaskError(ExportError):
    """The model has no head for the task, or no task can be chosen for it."""


class NewHeadError(ExportError):
    """The checkpoint lacks weights that the task needs; they would be random."""


class ModelFailedError(ExportError):
    """The original model itself fails on ordinary inputs, before anything was exported."""


class OutputExistsError(ExportError):
    """The output file is there already, and `force` was not given."""


class OutputError(ExportError):
    """The output cannot be written: folder, permission or space."""


class ForbiddenOperatorError(ExportError):
    """The written code calls operators that are not on the list of allowed ones, and were not allowed by name.

    `operators` are their names, as `aten::name`.
    """

    def __init__(self, found: str, expected: str = "", remedy: str = "", operators: Sequence[str] = ()) -> None:
        super().__init__(found, expected, remedy)
        self.operators = tuple(operators)


class BackendError(ExportError):
    """The backend is not available here, or it failed."""


class TraceError(ExportError):
    """No form of example inputs could be traced."""


class VerificationError(ExportError):
    """The written file's outputs differ from the model's; nothing was saved."""
