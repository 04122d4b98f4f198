"""What the stream says of itself: holes, and what it could not understand."""

from typing import Literal

from pydantic import Base64Bytes, Field

from hedgelock_ingest.models.values import Published, Timestamp


class Gap(Published):
    """
    A hole in one channel: frames that Bybit sent, or may have sent, and that never reached us.

    `feed` is the channel with its category, such as `linear:publicTrade.BTCUSDT`. The hole lies after `from` (the
    last frame before it) and before `to` (the first after it, or the moment when the channel was live again). The
    sequences are Bybit's: `u` of an order book, `seq` of a trade, `cs` of a ticker; null where there is none.
    `healed` says whether what was lost is in Kafka now: `partly` when a new snapshot made the state right while the
    updates in between stay lost, or when REST did not reach back far enough; `missing` says what is not there. `reason`
    is why the hole came to be.
    """

    timestamp: Timestamp
    feed: str
    from_: Timestamp = Field(alias="from")
    to: Timestamp
    from_sequence: int | None
    to_sequence: int | None
    healed: Literal["yes", "partly", "no"]
    healed_by: Literal["snapshot", "rest"] | None
    missing: str | None
    reason: str


class DeadLetter(Published):
    """
    A frame that could not be understood, whole.

    `raw` is base64. `origin` says what it was (`websocket`), `line` where it was read, `feed` its channel if it could
    be told, else its category.
    """

    timestamp: Timestamp
    raw: Base64Bytes
    reason: str
    origin: str
    line: str
    feed: str
    attempts: int
