"""Balances of the topics that are compared with a poll: each only in the record that reported it."""

import json
from decimal import Decimal

import pytest

from hedgelock_ingest.account.reconciliation import WalletRecords
from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.kafka.consumer import ConsumedRecord
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_messages import Part, Purpose
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest_tests.translate.account_feeder import (
    LOAN_POSITION,
    Feeder,
    a_position_frame,
    a_row,
    a_wallet,
    a_wallet_frame,
)

JOURNAL = b"a"


def taken(*records: Record) -> WalletRecords:
    """Read the records of `account_raw`."""
    wallet = WalletRecords("acc")
    for offset, record in enumerate(record for record in records if record.topic is Topic.ACCOUNT_RAW):
        wallet.take(ConsumedRecord("account_raw", 0, offset, b"acc", record.value, JOURNAL, None))
    return wallet


def test_frame_reports_only_its_own_coins() -> None:
    """Its message holds all coins: those of earlier frames would hide that a later frame is missing."""
    feeder = Feeder()
    wallet = taken(*feeder.frame(a_wallet_frame(1_000, BTC="5")), *feeder.frame(a_wallet_frame(2_000, USDT="7")))
    assert [(one.at_ms, one.balances, one.is_complete) for one in wallet.streamed] == [
        (1_000, {"BTC": Decimal(5)}, False),
        (2_000, {"USDT": Decimal(7)}, False),
    ]
    assert wallet.frames == 2


def test_message_about_another_part_reports_no_balances() -> None:
    """Its balances are copies of what was known."""
    feeder = Feeder()
    feeder.frame(a_wallet_frame(1_000, BTC="5"))
    wallet = taken(
        *feeder.frame(a_position_frame(a_row())),
        *feeder.answer(Part.COLLATERAL, {"position": LOAN_POSITION}, time_ms=3_000, purpose=Purpose.POLL),
    )
    assert (wallet.streamed, wallet.frames, wallet.has_stream) == ([], 0, True)


def test_list_reports_its_coins_and_no_coin_that_it_lacks() -> None:
    """A coin that the list lacks stays in the message until a second list lacks it, too."""
    feeder = Feeder()
    records = feeder.frame(a_wallet_frame(1_000, BTC="5", ETH="1"))
    records += feeder.frame(a_wallet_frame(3_000, ETH="2"))
    records += feeder.answer(Part.WALLET, a_wallet(USDT="1", ETH="1"), time_ms=2_000, purpose=Purpose.POLL)
    last = taken(*records).streamed[-1]
    assert (last.at_ms, last.balances, last.is_complete) == (2_000, {"USDT": Decimal(1), "ETH": Decimal(2)}, True)


def test_record_of_an_earlier_version_reports_all_of_its_coins() -> None:
    """It holds those of its frame only."""
    [record] = [one for one in Feeder().frame(a_wallet_frame(1_000, BTC="5")) if one.topic is Topic.ACCOUNT_RAW]
    value = json.loads(record.value)
    del value["balances_detail"]
    wallet = WalletRecords("acc")
    wallet.take(ConsumedRecord("account_raw", 0, 0, b"acc", json.dumps(value).encode(), JOURNAL, None))
    assert [one.balances for one in wallet.streamed] == [{"BTC": Decimal(5)}]


@pytest.mark.parametrize("value", [b"[]", b'{"account_id":"\xff"}', b'{"of another program":' + b"[" * 200_000])
def test_record_of_a_foreign_format_is_an_error_that_names_its_place(value: bytes) -> None:
    """An operator must be able to find it; the comparison ends with an error of ours, whatever the bytes."""
    with pytest.raises(FrameError, match="topic=account_raw partition=0 offset=7 is not a HedgeLock record"):
        WalletRecords("acc").take(ConsumedRecord("account_raw", 0, 7, b"acc", value, JOURNAL, None))
