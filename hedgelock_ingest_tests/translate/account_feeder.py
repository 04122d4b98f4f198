"""Feeds frames and REST answers to a translator and reads the records; builders of frames and answers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.protocol.rest_messages import Part, Purpose, RestAnswer
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.translator import Translator

SAMPLES = Path(__file__).parents[1] / "samples" / "private.jsonl"
TRACE = bytes.fromhex("20972 01de33843d994479bc2e2dcb783".replace(" ", ""))

# Bybit's documentation, Crypto Loan (New), Get Crypto Loan Position, shortened to one loan.
LOAN_POSITION = {
    "borrowList": [
        {
            "fixedTotalDebt": "0",
            "fixedTotalDebtUSD": "0",
            "flexibleHourlyInterestRate": "0.0000001361462",
            "flexibleTotalDebt": "0.08800022",
            "flexibleTotalDebtUSD": "9355.37",
            "loanCurrency": "BTC",
        }
    ],
    "collateralList": [{"amount": "0.12", "amountUSD": "9930.11", "currency": "BTC"}],
    "ltv": "0.524344",
    "supplyList": [],
    "totalCollateral": "18381.41",
    "totalDebt": "9638.17",
    "totalSupply": "800.13",
    "colRes": "0",
}
FLEXIBLE = {
    "list": [
        {
            "hourlyInterestRate": "0.0000018847396",
            "loanCurrency": "ETH",
            "totalDebt": "0.10000019",
            "unpaidAmount": "0.1",
            "unpaidInterest": "",
        }
    ]
}

AT_MS = 1_737_725_795_605
"""The time of the recorded position frame."""

EMPTY: dict[str, object] = {"list": []}
NO_POSITIONS: dict[str, object] = dict.fromkeys(("linear", "inverse", "option"), EMPTY)
ALL_EMPTY: dict[str, object] = dict.fromkeys(("linear", "inverse", "option", "spot"), EMPTY)


class Feeder:
    """Feeds frames to one translator, in order."""

    def __init__(self) -> None:
        self.translator = Translator(account_id="acc")
        self.position = 0

    def frame(self, raw: bytes, origin: str = "private-a") -> list[Record]:
        """Translate one frame; fail unless every record matches its model."""
        self.position += 1
        received_ns = _sent_ms(raw) * 1_000_000 + self.position
        frame = Frame(origin, received_ns, TRACE, raw)
        records = self.translator.translate(self.position, frame)
        for record in records:
            value = CONTRACTS[record.topic].message.model_validate_json(record.value)
            assert json.loads(value.model_dump_json(by_alias=True)) == json.loads(record.value)
        return records

    def answer(
        self,
        part: Part,
        results: Mapping[str, object],
        *,
        time_ms: int,
        purpose: Purpose = Purpose.SNAPSHOT,
        feed: str = "",
        refused: dict[str, str] | None = None,
        closes_gaps: bool = True,
    ) -> list[Record]:
        """Translate one REST answer."""
        raw = {name: msgspec.Raw(msgspec.json.encode(result)) for name, result in results.items()}
        answer = RestAnswer(part, purpose, time_ms, raw, feed, refused=refused or {}, closes_gaps=closes_gaps)
        return self.frame(msgspec.json.encode(answer), f"rest-{part}")

    def note(
        self, kind: str, *channels: str, at_ms: int = 1, reason: str = "", fills_gaps: bool = False
    ) -> list[Record]:
        """Translate one note of the pipeline."""
        note = {"note": kind, "at_ms": at_ms, "channels": channels, "reason": reason, "heals": fills_gaps}
        return self.frame(msgspec.json.encode(note), "note")


def _sent_ms(raw: bytes) -> int:
    """Return Bybit's time of a frame, by which it is read; 0 for everything else."""
    try:
        message = json.loads(raw)
        return int(message.get("creationTime", message.get("ts", 0)))
    except (ValueError, AttributeError, TypeError):
        return 0


def a_feeder(*, positions_at_ms: int = 10) -> Feeder:
    """Build a feeder whose account is known, so that merged views are published."""
    feeder = Feeder()
    feeder.answer(Part.POSITIONS, NO_POSITIONS, time_ms=positions_at_ms)
    feeder.answer(Part.COLLATERAL, {"position": LOAN_POSITION}, time_ms=11)
    feeder.answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=12)
    feeder.answer(Part.WALLET, a_wallet(USDT="1"), time_ms=13)
    return feeder


def values(records: list[Record], topic: Topic) -> list[dict[str, object]]:
    """Return the values of a topic's records."""
    return [json.loads(record.value) for record in records if record.topic is topic]


def sample(topic: str, number: int = 0) -> bytes:
    """Return a recorded frame of a topic."""
    lines = SAMPLES.read_bytes().splitlines()
    return [line for line in lines if json.loads(line).get("topic") == topic][number]


def a_row(symbol: str = "XRPUSDT", size: str = "4", **changes: object) -> dict[str, Any]:
    """Build a position row of the stream from the recorded one."""
    row: dict[str, Any] = json.loads(sample("position"))["data"][0]
    return row | {"symbol": symbol, "size": size} | changes


def a_position_frame(*rows: dict[str, Any], at_ms: int = AT_MS) -> bytes:
    """Build a frame of positions."""
    return json.dumps({"id": f"p{at_ms}", "topic": "position", "creationTime": at_ms, "data": rows}).encode()


def a_rest_row(symbol: str = "XRPUSDT", size: str = "4", **changes: object) -> dict[str, Any]:
    """Build the same position as REST describes it."""
    row = a_row(symbol, size, **changes)
    row["avgPrice"] = row.pop("entryPrice")
    return row


def a_wallet_frame(at_ms: int, account_type: str = "UNIFIED", **coins: str) -> bytes:
    """Build a frame of balances."""
    account = {"accountType": account_type, "coin": _coins(coins)}
    return json.dumps({"topic": "wallet", "id": f"w{at_ms}", "creationTime": at_ms, "data": [account]}).encode()


def a_wallet(**coins: str) -> dict[str, object]:
    """Build the result of the wallet balance."""
    return {"wallet": {"list": [{"accountType": "UNIFIED", "coin": _coins(coins)}]}}


def a_transferable_wallet(available: dict[str, object], **coins: str) -> dict[str, object]:
    """Build the results of a poll of the wallet with what may be transferred."""
    first = next(iter(available.values()), "")
    return a_wallet(**coins) | {"withdrawal": {"availableWithdrawal": first, "availableWithdrawalMap": available}}


def _coins(coins: dict[str, str]) -> list[dict[str, str]]:
    return [{"coin": coin, "walletBalance": balance} for coin, balance in coins.items()]


def a_rest_trade(number: int, at_ms: int, **changes: object) -> dict[str, object]:
    """Build a trade as REST lists it; its id is `t` and the number."""
    row: dict[str, object] = {"execId": f"t{number}", "symbol": "BTCUSDT", "price": "100.50", "size": "0.10"}
    return row | {"side": "Buy", "time": str(at_ms), "isBlockTrade": False, "seq": str(number)} | changes


def a_trade_frame(number: int, at_ms: int) -> bytes:
    """Build a frame of one trade, the same as REST would list."""
    row = {"T": at_ms, "s": "BTCUSDT", "S": "Buy", "v": "0.10", "p": "100.50", "i": f"t{number}", "seq": number}
    return json.dumps({"topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": at_ms, "data": [row]}).encode()
