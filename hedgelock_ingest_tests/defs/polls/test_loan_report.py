"""Report of the loan: a small chart, and the prices at the thresholds with their assumptions."""

import base64
import re
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from hedgelock_ingest.account.scheduled_polls import PollResult
from hedgelock_ingest.defs.polls.loan_report import loan_figures, owed
from hedgelock_ingest.defs.polls.ltv_chart import ltv_picture
from hedgelock_ingest.defs.polls.report import figures
from hedgelock_ingest.defs.polls.window import Polled
from hedgelock_ingest.models.account import AccountRaw, Balance, CollateralInfo, LoanInfo
from hedgelock_ingest.protocol.loans import collateral_figures
from hedgelock_ingest.protocol.rest_messages import Borrowed, LoanPositionResult, Part, Pledged

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PRICES = {"BTC": Decimal("64000"), "ETH": Decimal("3200.5")}


def a_poll(*, debt: str = "42500", collateral: dict[str, str] | None = None, after_s: float = 0) -> PollResult:
    """Build the result of a poll of a USDT loan; the collateral is in USD by coin."""
    pledged = {"BTC": "100000"} if collateral is None else collateral
    total = sum(map(Decimal, pledged.values()), Decimal(0))
    ltv = Decimal(debt) / total
    message = AccountRaw(
        source="collector",
        trace_id=uuid.UUID(int=4),
        timestamp=NOON + timedelta(seconds=after_s),
        account_id="a",
        balances=None,
        positions=None,
        collateral_info=CollateralInfo(
            ltv=ltv,
            collateral_value=total,
            borrowed_amount=Decimal(debt),
            **collateral_figures(total, Decimal(debt))._asdict(),
        ),
        loan_info=None,
        origin="rest:collateral",
    )
    loan = LoanPositionResult(
        borrowList=(Borrowed("USDT", "0", "0", debt, debt),),
        collateralList=tuple(Pledged(coin, "2", usd) for coin, usd in pledged.items()),
        ltv=str(ltv),
        totalCollateral=str(total),
        totalDebt=debt,
    )
    return PollResult(Part.COLLATERAL, message, 0.01, loan)


def reported(*polls: PollResult, prices: dict[str, Decimal] | None = None) -> dict[str, Any]:
    """Return the figures as plain values."""
    found = loan_figures(polls, PRICES if prices is None else prices, [])
    return {name: getattr(value, "value", value) for name, value in found.items()}


def test_price_of_the_only_coin_is_reported_at_each_threshold() -> None:
    """42,500 against 100,000 of BTC at 64,000: the margin call comes at half that price."""
    found = reported(a_poll())
    assert found["price at margin call, USD a BTC"] == 32_000
    assert found["price at liquidation, USD a BTC"] == pytest.approx(64_000 * 0.425 / 0.95, rel=1e-5)
    assert found["fall of collateral to margin call %"] == 50
    assert "Assumed:" in found["prices at thresholds"]


def test_several_coins_get_one_factor_and_a_price_each() -> None:
    """Two coins have no single price: they are assumed to fall together, and the report states it."""
    found = reported(a_poll(collateral={"BTC": "80000", "ETH": "20000", "USDT": "100"}))
    assert found["price factor at margin call"] == pytest.approx((0.425 / 0.85 * 100_000 - 100) / 100_000)
    assert not [name for name in found if name.startswith("price at")]
    rows = found["prices at thresholds"].splitlines()
    assert [line.split("|")[1].strip() for line in rows[2:5]] == ["BTC", "ETH", "factor for all"]
    assert "31,936.0" in rows[2]
    assert "1,597.05" in rows[3]


def test_factor_is_reported_without_a_price_from_bybit() -> None:
    """A missing answer removes one column, not the warning."""
    found = reported(a_poll(), prices={})
    assert "unknown" in found["prices at thresholds"]
    assert found["fall of collateral to margin call %"] == 50
    assert not [name for name in found if name.startswith("price at")]


def test_no_prices_are_reported_without_a_loan() -> None:
    """An account without debt cannot be liquidated."""
    found = reported(a_poll(debt="0"))
    assert not [name for name in found if "price" in name or "fall" in name]
    assert found["LTV"] == 0


# Rows of Bybit's documentation under their published names, shortened.
LOANS: dict[str, dict[str, Any]] = {
    "flexible": {"loan_currency": "ETH", "total_debt": "0.10000019", "unpaid_amount": "0.1"},
    "fixed": {"borrow_currency": "ETH", "residual_principal": "1.4", "residual_penalty_interest": "0", "status": 1},
    "legacy": {"loan_currency": "USDT", "total_debt": "1888.005198", "residual_interest": "0.04016"},
}


@pytest.mark.parametrize(
    ("kind", "text"),
    [("flexible", "ETH 0.10000019"), ("fixed", "ETH 1.4"), ("legacy", "USDT 1888.005198 + 0.04016 interest")],
)
def test_table_shows_what_is_owed_on_every_kind_of_loan(kind: str, text: str) -> None:
    """Each kind names coin and debt differently: a fixed loan was shown as None, which hides a debt."""
    loans: dict[str, Any] = {name: [row] if name == kind else None for name, row in LOANS.items()}
    poll = a_poll()
    message = poll.message.model_copy(update={"collateral_info": None, "loan_info": LoanInfo(**loans)})
    result = poll._replace(part=Part.LOANS, message=message)
    table = figures(Part.LOANS, Polled([result]), None)["polled"]
    assert text in str(getattr(table, "value", table))


def test_table_shows_the_polled_part_only() -> None:
    """The message holds all parts, but the others are as old as the topic's last record."""
    poll = a_poll()
    balances = {"DOGE": Balance(coin="DOGE", wallet_balance=Decimal(7), available_balance=None)}
    result = poll._replace(message=poll.message.model_copy(update={"balances": balances}))
    table = figures(Part.COLLATERAL, Polled([result]), None)["polled"]
    assert "LTV" in str(getattr(table, "value", table))
    assert "DOGE" not in str(getattr(table, "value", table))


def test_penalty_interest_of_a_fixed_loan_is_shown() -> None:
    """An overdue contract owes more than its principal."""
    assert owed("fixed", LOANS["fixed"] | {"residual_penalty_interest": "0.002"}) == "ETH 1.4 + 0.002 interest"
    assert owed("fixed", {}) == "unknown coin unknown"


@pytest.mark.parametrize("count", [1, 12, 75])
def test_chart_is_a_small_picture_of_the_polls(count: int) -> None:
    """Dagster's storage keeps one per minute for a day."""
    polls = [a_poll(debt=str(42_500 + 10 * number), after_s=5 * number) for number in range(count)]
    chart = reported(*polls)["LTV over time"]
    found = re.fullmatch(r"!\[LTV (.*)%.*\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)", chart)
    assert found is not None
    assert float(found[1]) == pytest.approx(42.5 + 0.01 * (count - 1))
    picture = base64.b64decode(found[2])
    assert len(picture) < 10_000
    with Image.open(BytesIO(picture)) as image:
        assert image.format == "PNG"
        assert image.width > 2 * image.height


def test_line_in_the_chart_follows_the_ltv() -> None:
    """A chart that ignored its data would pass the other tests."""
    low, high = (
        ltv_picture([(NOON, Decimal(ltv)), (NOON + timedelta(minutes=1), Decimal(ltv))]) for ltv in ("0.9", "0.6")
    )
    assert _rows_of_the_line(high) != _rows_of_the_line(low)
    assert min(_rows_of_the_line(high)) > min(_rows_of_the_line(low)), "a lower LTV was drawn higher up"


def _rows_of_the_line(picture: bytes) -> set[int]:
    with Image.open(BytesIO(picture)) as image:
        pixels = image.convert("RGB")
        return {
            y
            for y in range(pixels.height)
            if sum(pixels.getpixel((x, y)) == (79, 67, 221) for x in range(pixels.width)) > pixels.width / 2
        }


def test_code_server_does_not_import_plotting_libraries() -> None:
    """Each tick and each run loads the location; pandas and matplotlib would add a second."""
    look = "import sys, hedgelock_ingest.definitions; print(sorted({'matplotlib', 'pandas', 'PIL'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]", found.stdout
