"""Estimate of Bybit's clock, which signed requests and the authentication need."""


class ServerClock:
    """
    Tracks Bybit's clock with a monotonic clock of ours, so that a step of this machine's wall clock has no effect.

    `monotonic_s` is that clock in seconds. A measurement is valid for `valid_s`: clocks drift by milliseconds in five
    minutes.
    """

    def __init__(self, *, valid_s: float = 300.0) -> None:
        self._valid_s = valid_s
        self._server_ms = 0.0
        self._measured_s: float | None = None

    def measured(self, server_ms: float, *, sent_s: float, received_s: float) -> None:
        """Record a time answer; on average Bybit takes the time halfway between request and arrival."""
        self._server_ms = server_ms
        self._measured_s = (sent_s + received_s) / 2

    def forget(self) -> None:
        """Discard the measurement, so that the clock is measured again before use."""
        self._measured_s = None

    def is_known(self, monotonic_s: float) -> bool:
        """Return whether there is a valid measurement."""
        return self._measured_s is not None and monotonic_s - self._measured_s < self._valid_s

    def now_ms(self, monotonic_s: float, wall_ms: int) -> int:
        """Return Bybit's time in milliseconds; this machine's if nothing was measured."""
        if self._measured_s is None:
            return wall_ms
        return int(self._server_ms + (monotonic_s - self._measured_s) * 1000)
