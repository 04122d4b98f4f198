"""Bybit's clock, as far as we know it."""


class ServerClock:
    """
    Follows Bybit's clock by a monotonic one of ours, so that a step of this machine's wall clock changes nothing.

    `monotonic_s` is that clock in seconds. A measurement is used for `valid_s`: machines' clocks drift by milliseconds
    in five minutes.
    """

    def __init__(self, *, valid_s: float = 300.0) -> None:
        self._valid_s = valid_s
        self._server_ms = 0.0
        self._measured_s: float | None = None

    def measured(self, server_ms: float, *, sent_s: float, received_s: float) -> None:
        """Take an answer about the time; on average it was given halfway between question and arrival."""
        self._server_ms = server_ms
        self._measured_s = (sent_s + received_s) / 2

    def forget(self) -> None:
        """Have it measured again before it is used."""
        self._measured_s = None

    def is_known(self, monotonic_s: float) -> bool:
        """Say whether there is a measurement that is not too old."""
        return self._measured_s is not None and monotonic_s - self._measured_s < self._valid_s

    def now_ms(self, monotonic_s: float, wall_ms: int) -> int:
        """Give Bybit's time in milliseconds, this machine's where nothing was ever measured."""
        if self._measured_s is None:
            return wall_ms
        return int(self._server_ms + (monotonic_s - self._measured_s) * 1000)
