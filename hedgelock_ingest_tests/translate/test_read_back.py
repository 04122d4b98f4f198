"""Polls of other processes, read from `account_raw` into the account."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.protocol.rest_messages import Part, Purpose, RestAnswer
from hedgelock_ingest.translate.read_back import read_back
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.translator import Translator

ACCOUNT = "default_account"
AT_MS = 1_752_627_962_123
RESULTS: dict[Part, dict[str, Any]] = {
    Part.WALLET: {
        "wallet": {"list": [{"coin": [{"coin": "BTC", "walletBalance": "0.50", "availableToWithdraw": ""}]}]}
    },
    Part.COLLATERAL: {
        "position": {
            "borrowList": [],
            "collateralList": [],
            "ltv": "0.524344",
            "totalCollateral": "18381.41",
            "totalDebt": "9638.17",
        }
    },
    Part.LOANS: {"flexible": {"list": [{"loanCurrency": "BTC", "totalDebt": "0.088"}]}},
}


def an_answer(part: Part, purpose: Purpose = Purpose.POLL) -> RestAnswer:
    """Build Bybit's answer to a poll."""
    results = {name: msgspec.Raw(msgspec.json.encode(result)) for name, result in RESULTS[part].items()}
    return RestAnswer(part, purpose, AT_MS, results)


def translated(translator: Translator, position: int, answer: RestAnswer) -> list[Record]:
    """Journal an answer and translate it."""
    frame = Frame(f"rest-{answer.part}", AT_MS * 1_000_000, bytes(16), msgspec.json.encode(answer))
    return translator.translate(position, frame)


def a_published_poll(part: Part, account_id: str = ACCOUNT) -> bytes:
    """Build the record that another process writes to `account_raw`."""
    records = translated(Translator(account_id=account_id), 1, an_answer(part))
    return next(record.value for record in records if record.topic is Topic.ACCOUNT_RAW)


def test_merged_view_is_the_same_with_own_polls_and_with_read_back_ones() -> None:
    """Consumers must see no difference between polls of the stream and of an orchestrator."""
    ours, theirs = Translator(), Translator()
    positions = RestAnswer(Part.POSITIONS, Purpose.SNAPSHOT, AT_MS, {"linear": msgspec.Raw(b'{"list":[]}')})
    views = []
    for translator, is_ours in ((ours, True), (theirs, False)):
        records = translated(translator, 1, positions)
        for position, part in enumerate(RESULTS, 2):
            answer = an_answer(part) if is_ours else read_back(a_published_poll(part), ACCOUNT)
            assert answer is not None
            records += translated(translator, position, answer)
        views.append([json.loads(each.value) for each in records if each.topic is Topic.ACCOUNT_UPDATES])

    assert views[0] == views[1]
    assert Decimal(views[0][-1]["ltv"]) == Decimal("0.524344")


@pytest.mark.parametrize("part", list(RESULTS))
def test_poll_that_was_read_back_is_not_published_again(part: Part) -> None:
    """It is in `account_raw` already; two streams that republished it would do so without end."""
    answer = read_back(a_published_poll(part), ACCOUNT)
    assert answer is not None

    assert {record.topic for record in translated(Translator(), 1, answer)} <= {Topic.ACCOUNT_UPDATES}


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"not JSON",
        b"[]",
        a_published_poll(Part.COLLATERAL, "another account"),
        a_published_poll(Part.WALLET).replace(b"rest:wallet", b"websocket:wallet"),
        a_published_poll(Part.COLLATERAL).replace(b'"collateral_info":{', b'"collateral":{'),
    ],
)
def test_record_that_is_no_poll_of_this_account_is_ignored(value: bytes) -> None:
    """Other programs may write to the topic; their records must neither change the account nor stop the stream."""
    assert read_back(value, ACCOUNT) is None
