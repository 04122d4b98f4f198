"""Refusals: the meaning of a broker's error codes for the batch that it refuses."""

from enum import Enum, auto
from typing import Final, NamedTuple

from aiokafka.errors import for_code

RECORDS_TOO_LARGE: Final = frozenset({10, 18})
"""MESSAGE_TOO_LARGE and RECORD_LIST_TOO_LARGE."""
LEADER_NOT_AVAILABLE: Final = 5
MAY_BE_MISSING: Final = frozenset({3, LEADER_NOT_AVAILABLE})
"""Refusals, first UNKNOWN_TOPIC_OR_PARTITION, by a topic that may have been deleted."""
DUPLICATE_SEQUENCE_NUMBER: Final = 46
MAY_HAVE_APPENDED: Final = frozenset({-1, 7, 20})
"""UNKNOWN_SERVER_ERROR, REQUEST_TIMED_OUT and NOT_ENOUGH_REPLICAS_AFTER_APPEND: the leader may have the batch."""
_INVALID_TIMESTAMP: Final = 32
_ABOUT_RECORDS: Final = RECORDS_TOO_LARGE | {44, 87}  # and POLICY_VIOLATION, INVALID_RECORD
# OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID_MAPPING, UNKNOWN_PRODUCER_ID,
# PRODUCER_FENCED.
_ABOUT_PRODUCER: Final = frozenset({45, 47, 49, 59, 90})
_UNNAMED: Final = {
    74: "FENCED_LEADER_EPOCH",
    75: "UNKNOWN_LEADER_EPOCH",
    76: "UNSUPPORTED_COMPRESSION_TYPE",
    87: "INVALID_RECORD",
    89: "THROTTLING_QUOTA_EXCEEDED",
    90: "PRODUCER_FENCED",
    100: "UNKNOWN_TOPIC_ID",
}
"""Codes that aiokafka does not name."""


_CAUSES: Final = {
    3: "it does not exist, or not with this partition",
    LEADER_NOT_AVAILABLE: "a partition has no leader: its brokers are down",
    19: "fewer replicas are in sync than min.insync.replicas",
    29: "the user lacks the operation Write on it",
    31: "the user lacks the operation IdempotentWrite on the cluster",
    _INVALID_TIMESTAMP: "the broker's clock and this machine's differ by more than its message.timestamp.*.max.ms",
    76: "its broker does not know the codec of KAFKA_COMPRESSION",
}


class RefusalKind(Enum):
    """
    What to do about a refused batch.

    RECORDS: a record in it is never accepted; the others are. TIME: its records are too old or too new by their
    timestamps. PRODUCER: the producer can no longer keep order. LATER: the same batch may be accepted later.
    """

    RECORDS = auto()
    TIME = auto()
    PRODUCER = auto()
    LATER = auto()


class BatchRefusal(NamedTuple):
    """
    A broker's refusal of a batch: nothing of it was appended, unless an earlier answer was lost.

    Source of the codes: Apache Kafka, "Protocol", "Error Codes".
    """

    code: int

    @property
    def kind(self) -> RefusalKind:
        """What to do about it; a code that is not known may pass."""
        if self.code in _ABOUT_RECORDS:
            return RefusalKind.RECORDS
        if self.code == _INVALID_TIMESTAMP:
            return RefusalKind.TIME
        return RefusalKind.PRODUCER if self.code in _ABOUT_PRODUCER else RefusalKind.LATER

    @property
    def text(self) -> str:
        """The refusal with its usual cause, if there is one."""
        cause = _CAUSES.get(self.code)
        return f"{self}: {cause}" if cause else str(self)

    def __str__(self) -> str:
        """Return Kafka's name of the code, and the code."""
        name = _UNNAMED.get(self.code) or getattr(for_code(self.code), "message", "UNKNOWN")
        return f"{name} ({self.code})"
