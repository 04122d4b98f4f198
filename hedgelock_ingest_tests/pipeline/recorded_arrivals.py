"""Record of all arrivals of a receiver."""

from hedgelock_ingest.pipeline.arrivals import Arrivals
from hedgelock_ingest.pipeline.receiver import Receiver


class RecordedArrivals:
    """Takes and keeps the arrivals of a receiver, in place of the stream."""

    def __init__(self, receiver: Receiver) -> None:
        """Start empty."""
        self._receiver = receiver
        self._recorded = Arrivals()

    @property
    def arrivals(self) -> Arrivals:
        """All arrivals since the start, or since `forget`."""
        while self._receiver.waiting:
            self._recorded.extend(self._receiver.take())
        return self._recorded

    def forget(self) -> None:
        """Drop the arrivals so far."""
        self.arrivals.take(len(self.arrivals))
