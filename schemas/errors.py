"""Every error the project raises, as one tree.

HubspectraError
├── UsageError            the user asked for something impossible; the command ends with exit code 1
│   ├── TargetError       no such folder or file, or a name that is no repository id
│   ├── ConfigError       a configuration file or option with a wrong key or value
│   └── LakeError         not a lake, a lake of a newer version, or a lake in use by another scan
└── ScanError             something in one repository; becomes a Failure row, the scan goes on
    ├── SourceError       the hub or the disk did not give the bytes (may be retryable)
    ├── FormatError       the bytes are not what they claim to be (never retryable)
    └── NumericsError     the matrix defeats the solver (never retryable)
"""

from schemas.results import FailureKind


class HubspectraError(Exception):
    """Base of all errors raised on purpose."""


class UsageError(HubspectraError):
    """What was asked for cannot be done; the message says what to do instead."""


class TargetError(UsageError, ValueError):
    """A scan target that is neither a readable path nor a repository id."""


class ConfigError(UsageError, ValueError):
    """A configuration key or value that is not known."""


class LakeError(UsageError):
    """The lake folder cannot be used."""


class ScanError(HubspectraError):
    """Something in one repository failed; carries what a Failure row needs.

    `retryable` says whether the same call may succeed later; `http_status` is None when no HTTP
    reply was involved. Messages never contain a token or a signed URL.
    """

    retryable = False

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        file: str | None = None,
        tensor: str | None = None,
        http_status: int | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.file = file
        self.tensor = tensor
        self.http_status = http_status
        if retryable is not None:
            self.retryable = retryable

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by keyword: an error crosses process borders whole."""
        return (
            _rebuild,
            (type(self), self.kind, self.message, self.file, self.tensor, self.http_status, self.retryable),
        )


class SourceError(ScanError):
    """The hub or the disk did not give the bytes."""


class FormatError(ScanError, ValueError):
    """The bytes are not what they claim to be."""


class NumericsError(ScanError, ArithmeticError):
    """The matrix defeats the solver; `num_nonfinite` counts its NaN and Inf entries where they are why."""

    num_nonfinite: int | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Carry the count too."""
        return (*super().__reduce__(), {"num_nonfinite": self.num_nonfinite})


def _rebuild(
    cls: type[ScanError],
    kind: FailureKind,
    message: str,
    file: str | None,
    tensor: str | None,
    http_status: int | None,
    retryable: bool,
) -> ScanError:
    return cls(kind, message, file=file, tensor=tensor, http_status=http_status, retryable=retryable)
