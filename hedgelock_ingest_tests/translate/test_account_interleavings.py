"""Frames and lagging REST answers in any order: the account ends as the exchange's ledger."""

import json
from random import Random
from typing import Any, NamedTuple

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_messages import Part
from hedgelock_ingest.translate.absence import REST_LAG_MS
from hedgelock_ingest_tests.translate.account_feeder import FLEXIBLE, LOAN_POSITION, Feeder, sample, values

BEGAN_MS = 1_737_725_000_000
SYMBOLS = (("linear", "BTCUSDT"), ("linear", "ETHPERP"), ("inverse", "BTCUSD"))
COINS = ("USDT", "BTC")
MOST_BEHIND_MS = 3_000


class Step(NamedTuple):
    """One step of the exchange: what changes, and how REST is asked after it."""

    after_ms: int
    symbol: int
    size: int
    coin: int
    balance: int
    is_asked: bool
    behind_ms: int
    arrives_after: int
    is_stream_down: bool


def a_script(seed: int) -> list[Step]:
    """Draw the steps of a seed."""
    random = Random(seed)
    return [
        Step(
            after_ms=random.choice([1, 20, 700, 2_000]),
            symbol=random.randrange(len(SYMBOLS)),
            size=random.choice([0, 0, 1, 2]),
            coin=random.randrange(len(COINS)),
            balance=random.choice([0, 0, 5, 7]),
            is_asked=random.random() < 0.6,
            behind_ms=random.choice([0, 10, 1_000, MOST_BEHIND_MS]),
            arrives_after=random.choice([0, 0, 1, 3]),
            is_stream_down=random.random() < 0.2,
        )
        for _ in range(25)
    ]


class Ledger:
    """The exchange: its account at every time, as frames and as REST answers."""

    def __init__(self) -> None:
        self.now_ms = BEGAN_MS
        self.sequence = 1
        self.positions: list[tuple[int, dict[str, Any]]] = []
        self.coins: list[tuple[int, str, str]] = []

    def change(self, step: Step) -> tuple[bytes, bytes]:
        """Apply a step, and return the frames about it."""
        self.now_ms += step.after_ms
        self.sequence += 1
        category, symbol = SYMBOLS[step.symbol]
        row = json.loads(sample("position"))["data"][0] | {"category": category, "symbol": symbol}
        row |= {"size": str(step.size), "seq": self.sequence, "updatedTime": str(self.now_ms)}
        self.positions.append((self.now_ms, row))
        coin = {"coin": COINS[step.coin], "walletBalance": str(step.balance)}
        self.coins.append((self.now_ms, coin["coin"], coin["walletBalance"]))
        return self._frame("position", row), self._frame("wallet", {"coin": [coin]})

    def position_lists(self, at_ms: int) -> dict[str, object]:
        """Return the open positions of a time, by category."""
        last = {row["symbol"]: row for time_ms, row in self.positions if time_ms <= at_ms}
        found: dict[str, list[dict[str, Any]]] = {category: [] for category in ("linear", "inverse", "option")}
        for row in last.values():
            if row["size"] != "0":
                found[row["category"]].append(row)
        return {category: {"list": rows} for category, rows in found.items()}

    def wallet(self, at_ms: int) -> dict[str, object]:
        """Return the coins of a time that are not zero."""
        last = {coin: balance for time_ms, coin, balance in self.coins if time_ms <= at_ms}
        rows = [{"coin": coin, "walletBalance": balance} for coin, balance in last.items() if balance != "0"]
        return {"wallet": {"list": [{"coin": rows}]}}

    def books(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the open positions and the coins at present."""
        positions = {row["symbol"]: row["size"] for _, row in self.positions}
        coins = {coin: balance for _, coin, balance in self.coins}
        return _without_zero(positions), _without_zero(coins)

    def _frame(self, topic: str, row: dict[str, Any]) -> bytes:
        message = {"topic": topic, "id": f"{topic}{self.now_ms}", "creationTime": self.now_ms, "data": [row]}
        return json.dumps(message).encode()


def _without_zero(amounts: dict[str, str]) -> dict[str, str]:
    return {name: amount for name, amount in amounts.items() if amount != "0"}


def _viewed(view: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    return {one["symbol"]: one["size"] for one in view["positions"]}, _without_zero(view["balances"])


@pytest.mark.parametrize("is_dated_now", [False, True])
@pytest.mark.parametrize("has_outages", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_account_ends_as_the_ledger_whatever_the_order_of_frames_and_answers(
    seed: int, has_outages: bool, is_dated_now: bool
) -> None:
    """REST is up to 3 s behind, answers arrive late, and frames are lost while the stream is down; else never wrong."""
    ledger, feeder = Ledger(), Feeder()
    feeder.answer(Part.COLLATERAL, {"position": LOAN_POSITION}, time_ms=1)
    feeder.answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=1)
    under_way: list[tuple[int, Part, dict[str, object], int]] = []
    is_complete = True
    for number, step in enumerate(a_script(seed)):
        frames = ledger.change(step)
        is_down = has_outages and step.is_stream_down
        is_complete &= not is_down
        for frame in () if is_down else frames:
            feeder.frame(frame)
        if step.is_asked:
            at_ms = ledger.now_ms - step.behind_ms
            time_ms = ledger.now_ms if is_dated_now else at_ms
            under_way.append((number + step.arrives_after, Part.POSITIONS, ledger.position_lists(at_ms), time_ms))
            under_way.append((number + step.arrives_after, Part.WALLET, ledger.wallet(at_ms), time_ms))
        for arrival in [each for each in under_way if each[0] <= number]:
            under_way.remove(arrival)
            feeder.answer(arrival[1], arrival[2], time_ms=arrival[3])
        if is_complete:
            assert_ledger_is_kept(feeder, ledger)

    for later_ms in (1, 2):  # two lists that cannot be behind any change
        at_ms = ledger.now_ms + REST_LAG_MS + later_ms
        feeder.answer(Part.POSITIONS, ledger.position_lists(at_ms), time_ms=at_ms)
        feeder.answer(Part.WALLET, ledger.wallet(at_ms), time_ms=at_ms)
    assert_ledger_is_kept(feeder, ledger)


def assert_ledger_is_kept(feeder: Feeder, ledger: Ledger) -> None:
    """Compare the merged view, if there is one yet, and the whole message beside it with the ledger."""
    time_ms = ledger.now_ms + feeder.position
    records = feeder.answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=time_ms)
    [raw] = values(records, Topic.ACCOUNT_RAW)
    for view in values(records, Topic.ACCOUNT_UPDATES):
        assert _viewed(view) == ledger.books()
        balances: Any = raw["balances"]
        assert _viewed(raw | {"balances": {coin: one["wallet_balance"] for coin, one in balances.items()}}) == (
            ledger.books()
        )
