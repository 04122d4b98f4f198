"""Reports of the stream about its own data: gaps and dead letters."""

from typing import Literal

from pydantic import Base64Bytes, Field

from hedgelock_ingest.models.values import Published, Timestamp


class Gap(Published):
    """
    A gap in one channel: frames that Bybit sent, or may have sent, and that never reached us.

    `feed` is the channel with its category, such as `linear:publicTrade.BTCUSDT`. The gap lies after `from` (the
    last frame before it) and before `to` (the first frame after it, or the time when the channel was live again). The
    sequences are Bybit's: `u` of an order book, `seq` of a trade, `cs` of a ticker; null where there is none.
    `healed` is whether the missing data is in Kafka now: `partly` when a new snapshot restored the state but the
    updates in between stay lost, or when REST did not reach back far enough; `missing` is what is not there. `reason`
    is the cause of the gap.
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
    A frame that could not be processed, with all its bytes.

    `raw` is base64. `origin` is its source (`websocket` or `rest`), `line` is where it was read, `feed` is its channel
    if that could be found, else its category.
    """

    timestamp: Timestamp
    raw: Base64Bytes
    reason: str
    origin: str
    line: str
    feed: str
    attempts: int
