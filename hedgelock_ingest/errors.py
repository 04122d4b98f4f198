"""
Every error of the project, defined once.

    IngestError
    ├── SettingsInvalid        every wrong setting, named at once (exit 2)
    ├── KeyRefused             Bybit refuses the key, or the key may trade (exit 3)
    ├── LineError
    │   ├── LineLost           a connection ended or could not be opened   transient
    │   └── TooManyChannels
    ├── FrameError             a frame that could not be decoded; becomes a dead letter
    ├── JournalError
    │   ├── JournalLocked      another process owns the journal
    │   ├── JournalFull        no room: the bound is reached, or the disk    transient
    │   ├── JournalDamaged     the file cannot be read as a journal
    │   └── JournalWriteFailed the disk refused a write                      transient
    ├── KafkaError
    │   ├── KafkaUnavailable   no answer, or not in time                    transient
    │   ├── KafkaDenied        the user lacks a permission                  transient
    │   ├── ProducerSpent      this producer must be replaced by a new one  transient
    │   ├── RecordRefused      Kafka will never accept this record
    │   └── TopicMismatch      a topic is missing or differs from what is needed
    ├── RestError
    │   ├── RestUnavailable    Bybit's REST gave no usable answer           transient
    │   ├── RestLimited        too many requests: wait before the next one  transient
    │   ├── ClockRefused       Bybit's clock and ours differ too much       transient
    │   ├── OutOfReach         REST has no data of the requested time
    │   └── RestRefused        Bybit refuses this request, now and later
    ├── BackfillRunning        another backfill is running              transient
    ├── ProbeFailed            `check` got no usable answer from Bybit
    └── SandboxError           the simulated exchange or the embedded broker cannot run
        └── DataFolderInUse    another broker uses the data folder

Retry code reads `transient` and nothing else.
"""

from collections.abc import Iterator
from typing import ClassVar


class IngestError(Exception):
    """Base of all errors of this project; the message states what was found, what was expected, and what to do."""

    transient: ClassVar[bool] = False


def first_error[Error: Exception](errors: ExceptionGroup[Error]) -> Error:
    """Return the first error of a group that a task group raised; an expected one, if there is any, before others."""
    flat = list(_flat(errors))
    return next((each for each in flat if isinstance(each, IngestError)), flat[0])


def _flat[Error: Exception](errors: ExceptionGroup[Error]) -> Iterator[Error]:
    for each in errors.exceptions:
        if isinstance(each, ExceptionGroup):
            yield from _flat(each)
        else:
            yield each


def first_cause(error: BaseException) -> BaseException:
    """Return an error, or the first one of a group: a group's own text names no cause."""
    return first_error(error) if isinstance(error, ExceptionGroup) else error


class SettingsInvalid(IngestError):
    """Settings that cannot be used; `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class KeyRefused(IngestError):
    """Bybit refuses the API key, or the key could trade or withdraw."""


class LineError(IngestError):
    """A failure of one WebSocket line."""


class LineLost(LineError):
    """
    A connection ended or could not be opened; another attempt may succeed.

    `cause` is one of a small fixed set of words, suitable as a log field or a metric's label.
    """

    transient = True

    def __init__(self, message: str, *, cause: str = "connection_lost") -> None:
        super().__init__(message)
        self.cause = cause


class TooManyChannels(LineError):
    """More channels than one connection may carry."""


class FrameError(IngestError):
    """A frame that could not be decoded; the message is the dead letter's reason and contains no value."""


class JournalError(IngestError):
    """A failure of the durable log of frames."""


class JournalLocked(JournalError):
    """Another process owns this journal."""


class JournalFull(JournalError):
    """Unacknowledged frames have reached `JOURNAL_MAX_BYTES`, or the disk has no room for more."""

    transient = True


class JournalDamaged(JournalError):
    """A journal file cannot be read."""


class JournalWriteFailed(JournalError):
    """The disk refused a write, for example because it is full."""

    transient = True


class KafkaError(IngestError):
    """A failure of Kafka."""


class KafkaUnavailable(KafkaError):
    """Kafka did not answer, or not in time."""

    transient = True


class KafkaDenied(KafkaError):
    """Kafka denies the user an operation; a later attempt may succeed, since an operator may allow it meanwhile."""

    transient = True


class ProducerSpent(KafkaError):
    """This producer can no longer keep order; a new one continues from the journal."""

    transient = True


class RecordRefused(KafkaError):
    """Kafka will never accept this record, for example because it exceeds the topic's maximum message size."""


class TopicMismatch(KafkaError):
    """A topic is missing, or differs from what the settings require."""


class RestError(IngestError):
    """A failure of Bybit's REST."""


class RestUnavailable(RestError):
    """No answer, not in time, or not in Bybit's format."""

    transient = True


class RestLimited(RestError):
    """Too many requests; `wait_s` is how long to send none."""

    transient = True

    def __init__(self, message: str, *, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class ClockRefused(RestError):
    """Bybit refuses the timestamp of a request."""

    transient = True


class OutOfReach(RestError):
    """REST has no data of the requested time: it is too long ago, or has not ended."""


class RestRefused(RestError):
    """Bybit refuses a request; `code` is its `retCode`, or the HTTP status where there is none."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class BackfillRunning(IngestError):
    """Another backfill is running on the same journals."""

    transient = True


class ProbeFailed(IngestError):
    """`check` got no usable answer from Bybit, or not in time."""


class SandboxError(IngestError):
    """The simulated exchange or the embedded broker cannot run."""


class DataFolderInUse(SandboxError):
    """Another broker uses the data folder; `owner` is the process that started it, or `unknown`."""

    def __init__(self, folder: object, owner: str) -> None:
        """Take the folder, and the content of its lock."""
        self.owner = owner or "unknown"
        super().__init__(
            f"another broker uses the data folder {folder} (process {self.owner}); stop it or choose another folder"
        )
