"""Polls that stand in `account_raw` already: who tries again must neither repeat them nor hold them for missed."""

from typing import NamedTuple

import msgspec
from pydantic import ValidationError

from hedgelock_ingest.kafka.span import read_span
from hedgelock_ingest.models.account import AccountRaw
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_messages import Part
from hedgelock_ingest.settings import Settings

_PART_BY_ORIGIN = {f"rest:{part}": part for part in Part}


class PastPoll(NamedTuple):
    """What an earlier poll published, and the number it had in its session."""

    part: Part
    number: int
    message: AccountRaw


class _Raw(msgspec.Struct):
    origin: str
    account_id: str


_raw = msgspec.json.Decoder(_Raw)


async def past_polls(settings: Settings, *, since_ms: int, until_ms: int) -> list[PastPoll]:
    """
    Read the polls of the account whose answers came between two times; `until_ms` itself is not wanted.

    Raises:
        KafkaUnavailable: No answer, or not in time.
    """
    return [
        past
        async for group in read_span(settings, [Topic.ACCOUNT_RAW], from_ms=since_ms, to_ms=until_ms)
        for record in group
        if record.value is not None
        and record.name is not None
        and (past := _past_poll(settings.bybit_account_id, record.value, record.name[0])) is not None
    ]


def _past_poll(account_id: str, value: bytes, number: int) -> PastPoll | None:
    # Others may write here too, and what they write is theirs to judge.
    try:
        raw = _raw.decode(value)
        part = _PART_BY_ORIGIN.get(raw.origin)
        if part is None or raw.account_id != account_id:
            return None
        return PastPoll(part, number, AccountRaw.model_validate_json(value))
    except (msgspec.DecodeError, ValidationError):
        return None
