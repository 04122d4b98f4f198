"""How long publishing waits for Kafka, in one value."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KafkaTiming:
    """
    The times of publishing, in seconds.

    Args:
        patience_s: How long records may stay unacknowledged before the producer is given up; until then they are sent
            again.
        open_timeout_s: How long a producer may take to connect.
        stop_timeout_s: How long a producer may take to end by itself before its connections are cut.
        retry_s: The pause before a broker is asked again.
        request_timeout_s: How long each step of reading back what has arrived may take.
        read_timeout_s: How long one fetch waits for records.
        quiet_s: How long the ends of the topics must not have moved, where bytes of a dead producer may arrive late.
        longest_settling: How many times `quiet_s` the ends are waited for at most.
    """

    patience_s: float = 60.0
    open_timeout_s: float = 20.0
    stop_timeout_s: float = 2.0
    retry_s: float = 0.3
    request_timeout_s: float = 15.0
    read_timeout_s: float = 1.0
    quiet_s: float = 0.3
    longest_settling: int = 7

    @property
    def ask_ms(self) -> int:
        """How long a broker may take to answer for batches, milliseconds: longer than our own patience."""
        return int(2 * self.patience_s * 1000)

    @property
    def retry_ms(self) -> int:
        """`retry_s` in milliseconds, as aiokafka takes it."""
        return int(self.retry_s * 1000)
