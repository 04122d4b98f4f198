"""Polls of other processes, read from `account_raw` into the account."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from hedgelock_ingest.models.account import AccountRaw
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.protocol.rest_messages import Part, Purpose, RestAnswer
from hedgelock_ingest.translate.known_parts import KnownParts
from hedgelock_ingest.translate.read_back import read_back
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.translator import Translator

ACCOUNT = "default_account"
AT_MS = 1_752_627_962_123
RESULTS: dict[Part, dict[str, Any]] = {
    Part.WALLET: {
        "wallet": {
            "list": [
                {
                    "totalEquity": "33000.10",
                    "accountIMRate": "",
                    "coin": [
                        {"coin": "BTC", "walletBalance": "0.50", "equity": "0.51", "collateralSwitch": True},
                        {"coin": "ETH", "walletBalance": "2", "availableToWithdraw": ""},
                    ],
                }
            ]
        },
        "withdrawal": {"availableWithdrawal": "0.40", "availableWithdrawalMap": {"BTC": "0.40"}},
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


def raws(records: list[Record]) -> list[dict[str, Any]]:
    """Return the values of `account_raw`."""
    return [json.loads(each.value) for each in records if each.topic is Topic.ACCOUNT_RAW]


def a_whole_poll(part: Part) -> tuple[bytes, dict[str, Any]]:
    """Build the message of a poll that is completed with other parts, and return its value, too."""
    known = KnownParts()
    for other in RESULTS.keys() - {part}:
        known.add(AccountRaw.model_validate_json(a_published_poll(other)))
    whole = known.complete(AccountRaw.model_validate_json(a_published_poll(part)))
    value = whole.model_dump_json(by_alias=True).encode()
    return value, json.loads(value)


@pytest.mark.parametrize("part", list(RESULTS))
def test_only_the_part_that_the_origin_names_is_read_back(part: Part) -> None:
    """The poll has copied the other parts from the topic: as news they would undo what the stream has seen since."""
    value, shown = a_whole_poll(part)
    assert not [name for name in ("balances", "collateral_info", "loan_info") if shown[name] is None]
    answer = read_back(value, ACCOUNT)
    assert answer is not None
    assert answer.part is part
    assert answer == read_back(a_published_poll(part), ACCOUNT)


@pytest.mark.parametrize("part", list(RESULTS))
def test_message_after_a_poll_that_was_read_back_has_all_of_its_part(part: Part) -> None:
    """Figures, available balances and loans are in every later message of the stream."""
    ours, theirs = Translator(), Translator()
    answer = read_back(a_whole_poll(part)[0], ACCOUNT)
    assert answer is not None
    translated(ours, 1, an_answer(part))
    translated(theirs, 1, answer)
    positions = RestAnswer(Part.POSITIONS, Purpose.SNAPSHOT, AT_MS + 1, {"linear": msgspec.Raw(b'{"list":[]}')})
    [own], [other] = (raws(translated(each, 2, positions)) for each in (ours, theirs))
    if part is Part.WALLET:
        assert own["balances"]["BTC"]["available_balance"] == "0.40"
        assert own["margin"]["total_equity"] == "33000.10"
    assert other == own


def test_balance_that_was_known_before_the_poll_is_no_news_of_it() -> None:
    """A stream that polls itself publishes balances of frames that are later than its poll."""
    translator = Translator()
    frame = {"topic": "wallet", "id": "w", "creationTime": AT_MS + 5}
    coins = [{"coin": "BTC", "walletBalance": "0.70"}]
    raw = json.dumps(frame | {"data": [{"coin": coins}]}).encode()
    translator.translate(1, Frame("private-a", AT_MS * 1_000_000, bytes(16), raw))
    [published] = raws(translated(translator, 2, an_answer(Part.WALLET)))
    assert published["balances"]["BTC"]["wallet_balance"] == "0.70"
    answer = read_back(json.dumps(published).encode(), ACCOUNT)
    assert answer is not None
    [account] = json.loads(bytes(answer.results["wallet"]))["list"]
    assert [coin["coin"] for coin in account["coin"]] == ["ETH"]


@pytest.mark.parametrize("part", list(RESULTS))
def test_poll_of_an_earlier_version_is_read_back(part: Part) -> None:
    """During an upgrade both versions write to the topic."""
    value = json.loads(a_published_poll(part))
    for name in ("as_of", "margin", "balances_detail"):
        del value[name]
    answer = read_back(json.dumps(value).encode(), ACCOUNT)
    assert answer is not None
    views = []
    for each in (answer, an_answer(part)):
        translator = Translator()
        translated(translator, 1, each)
        positions = RestAnswer(Part.POSITIONS, Purpose.SNAPSHOT, AT_MS + 1, {"linear": msgspec.Raw(b'{"list":[]}')})
        [raw] = raws(translated(translator, 2, positions))
        views.append({name: raw[name] for name in ("balances", "collateral_info", "loan_info")})
    assert views[0] == views[1]


@pytest.mark.parametrize("part", list(RESULTS))
def test_poll_that_was_read_back_is_not_published_again(part: Part) -> None:
    """It is in `account_raw` already; two streams that republished it would do so without end."""
    answer = read_back(a_published_poll(part), ACCOUNT)
    assert answer is not None

    assert {record.topic for record in translated(Translator(), 1, answer)} <= {Topic.ACCOUNT_UPDATES}


@pytest.mark.parametrize("part", list(RESULTS))
def test_view_made_by_a_poll_of_another_process_has_the_trace_of_its_record(part: Part) -> None:
    """One origin, one trace: a consumer finds the poll behind a view by its trace."""
    translator = Translator()
    positions = RestAnswer(Part.POSITIONS, Purpose.SNAPSHOT, AT_MS, {"linear": msgspec.Raw(b'{"list":[]}')})
    for position, answer in enumerate([positions, *map(an_answer, RESULTS)], 1):
        translated(translator, position, answer)
    published = json.loads(a_published_poll(part)) | {"trace_id": "2f1d4c7a-9b3e-4f60-a1b2-c3d4e5f60718"}
    polled = read_back(json.dumps(published).encode(), ACCOUNT)
    assert polled is not None

    records = translated(translator, 9, polled)

    assert {record.trace_id for record in records} == {published["trace_id"]}
    assert {json.loads(record.value)["trace_id"] for record in records} == {published["trace_id"]}
    assert {json.loads(record.value)["source"] for record in records} == {"rest"}


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"not JSON",
        b"[]",
        a_published_poll(Part.COLLATERAL).replace(b"rest:collateral", b"rest:\xff"),
        b'{"of another program":' + b"[" * 200_000,
        a_published_poll(Part.COLLATERAL, "another account"),
        a_published_poll(Part.WALLET).replace(b"rest:wallet", b"websocket:wallet"),
        a_published_poll(Part.COLLATERAL).replace(b'"collateral_info":{', b'"collateral":{'),
    ],
)
def test_record_that_is_no_poll_of_this_account_is_ignored(value: bytes) -> None:
    """Other programs may write to the topic; their records must neither change the account nor stop the stream."""
    assert read_back(value, ACCOUNT) is None
