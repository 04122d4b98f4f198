"""Everything that a receiver has given up, for tests that look at it as a whole."""

from hedgelock_ingest.pipeline.arrivals import Arrivals
from hedgelock_ingest.pipeline.receiver import Receiver


class Taken:
    """Takes from a receiver, in place of the stream."""

    def __init__(self, receiver: Receiver) -> None:
        """Take nothing yet."""
        self._receiver = receiver
        self._taken = Arrivals()

    @property
    def arrivals(self) -> Arrivals:
        """All since the beginning, or since `forget`."""
        while self._receiver.waiting:
            self._taken.extend(self._receiver.take())
        return self._taken

    def forget(self) -> None:
        """Pass over what has come so far."""
        self.arrivals.take(len(self.arrivals))
