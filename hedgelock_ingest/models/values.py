"""Types that all published models share: exact decimals, UTC times, and the common fields."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

Digits = Annotated[
    Decimal,
    PlainSerializer(lambda number: format(number, "f"), return_type=str, when_used="json"),
    Field(json_schema_extra={"type": "string", "format": "decimal"}),
]
"""A decimal with exactly Bybit's digits; a JSON string without exponent."""


def iso_utc(at: datetime) -> str:
    """Write a time as `2024-05-15T04:52:42.463Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


Timestamp = Annotated[datetime, PlainSerializer(iso_utc, return_type=str, when_used="json")]
"""A time in UTC, with milliseconds."""

Category = Literal["spot", "linear"]
Side = Literal["Buy", "Sell"]


class Published(BaseModel):
    """
    The fields that the value of every record has.

    `source` is the origin of the data: `websocket`; `rest` for a poll, and for what stands in while no line is live;
    `rest-backfill` for data that fills a gap, such as a snapshot after a reconnect; `collector` for gaps, dead letters
    and `account_raw`; `dead-letter` for a frame that was processed later. `trace_id` is the version 4 UUID of the frame
    or answer that the record was made from; all records of one origin share it, in all topics.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: Literal[1] = 1
    source: Literal["websocket", "rest", "rest-backfill", "collector", "dead-letter"]
    trace_id: UUID
