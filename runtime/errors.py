"""Every error that this project raises on purpose.

In: what was found, what was expected, what to do. Out: one readable line.

    ExportedModelError
    ├── ArtifactError                 the file itself
    │   ├── ArtifactNotFoundError         no such file, or not readable
    │   ├── NotAnArtifactError            not a zip archive, cut short, or not TorchScript
    │   ├── UnsafeArchiveError            a zip that two readers could read differently, or that lies about sizes
    │   ├── DigestError                   a part, or the whole file, is not the one that was sealed
    │   ├── OperatorNotAllowedError       its code calls what no export contains
    │   ├── ManifestMissingError          a TorchScript file that this exporter did not write
    │   ├── ManifestDamagedError          the manifest or another stored part cannot be understood
    │   ├── ArtifactFailedError           the model in it fails where its manifest says that it works
    │   ├── SignatureError                not signed, or not by the key that was asked for
    │   └── FormatVersionError            written in a format newer than this runtime reads
    ├── RequirementError              this machine or this environment
    │   ├── TorchVersionError             the installed torch does not fit
    │   ├── IpexMissingError              Intel Extension for PyTorch is needed and absent
    │   ├── IpexVersionError              Intel Extension for PyTorch is there and does not fit
    │   ├── CpuFeatureError               the processor lacks an instruction set
    │   ├── OperatorNameError             a name in `allow_operators` that is no operator's
    │   ├── ThreadCountError              the thread count changed after weights were packed for it
    │   └── ExtraMissingError             an optional package is needed and absent
    ├── InputError                    what the caller passed to a session
    │   ├── InputNameError                unknown or missing name
    │   ├── InputTypeError                not a tensor, or a dtype that would lose information
    │   ├── InputRankError                wrong number of axes
    │   ├── InputSizeError                empty, too long, or axes that disagree
    │   ├── InputValueError               token ids (or other integers) out of range
    │   ├── InputTextError                text that does not fit the model
    │   ├── InputTaskError                an answer that belongs to another task than the artifact's
    │   └── InputFileError                a file of inputs that cannot be read
    ├── PoolError                     a pool of sessions
    │   ├── PoolFullError                 its queue holds as many rows as it may
    │   ├── PoolClosedError               it takes no requests any more
    │   └── DeadlineError                 the answer would have come too late
    ├── KeyFileError                  a key for signing that cannot be read or is of another kind
    ├── CheckFailedError              an answer differs from the stored one by more than the tolerance
    └── ExportError                   an export that cannot be done
        ├── RequestError                  the request contradicts itself
        ├── CalibrationError              the calibration samples cannot be used
        ├── EvaluationError               the file of labelled examples cannot be used
        ├── MetricDropError               the artifact's metric is lower than the model's by more than was allowed
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
        └── VerificationError             the written file gave wrong answers
"""

from __future__ import annotations

from collections.abc import Sequence


class ExportedModelError(Exception):
    """The root of the tree.

    Args:
        found: what was found, naming the file, input or package.
        expected: what would have been right; left out where `found` says it all.
        remedy: what the reader can do, as an imperative.
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
        # One line is the contract of the command line; causes from other packages bring newlines.
        super().__init__(" ".join(line.split()))


class ArtifactError(ExportedModelError):
    """Something is wrong with the file itself."""


class ArtifactNotFoundError(ArtifactError):
    """There is no such file, or it cannot be opened."""


class NotAnArtifactError(ArtifactError):
    """The file is not a TorchScript archive, or it was cut short."""


class UnsafeArchiveError(ArtifactError):
    """The zip's structure is one that no exporter writes: it could be read in two ways, or lies about sizes."""


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


class CpuFeatureError(RequirementError):
    """The processor lacks instructions that the precision needs."""


class ThreadCountError(RequirementError):
    """The thread count changed after the weights were packed for another one."""


class OperatorNameError(RequirementError):
    """What was given in `allow_operators` is no list of operators' names, or the installed torch lacks one of them."""


class ExtraMissingError(RequirementError):
    """An optional package is needed for this call."""


class InputError(ExportedModelError):
    """What the caller passed does not fit the artifact's inputs."""


class InputNameError(InputError):
    """An input name is unknown, or a required input is missing."""


class InputTypeError(InputError):
    """A value is no tensor, or its dtype cannot be converted without loss."""


class InputRankError(InputError):
    """A tensor has the wrong number of axes."""


class InputSizeError(InputError):
    """An axis is empty, too long, or differs from the same axis of another input."""


class InputValueError(InputError):
    """An integer, such as a token id, lies outside the range that the model knows."""


class InputTextError(InputError):
    """A text does not fit the model: too long, or the artifact takes no text."""


class InputTaskError(InputError):
    """What was asked for is the answer of another task than the artifact's, or needs what it does not hold."""


class InputFileError(InputError):
    """A file of inputs cannot be read."""


class PoolError(ExportedModelError):
    """A pool did not take a request, or did not answer it."""


class PoolFullError(PoolError):
    """The queue is full: more was asked than the machine answers."""


class PoolClosedError(PoolError):
    """The pool is closed, or closing."""


class DeadlineError(PoolError):
    """The request's deadline passed before its turn came."""


class KeyFileError(ExportedModelError):
    """A key for signing or checking signatures cannot be read, or is of another kind."""


class CheckFailedError(ExportedModelError):
    """An answer differs from the stored one by more than the tolerance."""


class ExportError(ExportedModelError):
    """An export that cannot be done."""


class RequestError(ExportError):
    """The request contradicts itself or holds a value that is not allowed."""


class CalibrationError(ExportError):
    """The file of calibration samples cannot be read, or does not fit the model."""


class EvaluationError(ExportError):
    """The file of labelled examples, or the task, cannot be evaluated."""


class MetricDropError(ExportError):
    """The artifact's metric is lower than the model's by more than was allowed."""


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
    """The written file gave answers that differ from the model's; nothing was shipped."""
