"""Timeouts and pauses of publishing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KafkaTiming:
    """
    Timeouts and pauses of publishing, in seconds.

    Args:
        patience_s: How long records may stay unacknowledged, with retries, before the producer is replaced.
        open_timeout_s: How long a producer may take to connect.
        stop_timeout_s: How long a producer may take to stop before its connections are aborted.
        retry_s: The pause before a request is retried.
        request_timeout_s: How long each step of reading back the tails may take.
        read_timeout_s: How long one fetch waits for records.
        quiet_s: How long the ends of the topics must not move, where bytes of a killed producer may arrive late.
        max_settling_rounds: The most waits of `quiet_s` for the ends.
    """

    patience_s: float = 60.0
    open_timeout_s: float = 20.0
    stop_timeout_s: float = 2.0
    retry_s: float = 0.3
    request_timeout_s: float = 15.0
    read_timeout_s: float = 1.0
    quiet_s: float = 0.3
    max_settling_rounds: int = 7

    @property
    def ask_ms(self) -> int:
        """How long a broker may take to answer for batches, milliseconds; longer than `patience_s`."""
        return int(2 * self.patience_s * 1000)

    @property
    def retry_ms(self) -> int:
        """`retry_s` in milliseconds, as aiokafka takes it."""
        return int(self.retry_s * 1000)
