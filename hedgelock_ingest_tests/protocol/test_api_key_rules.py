"""Decisions about API keys."""

from typing import Any

import msgspec
import pytest

from hedgelock_ingest.protocol.api_key_rules import KeyInformation, judge_key, judge_undescribed_key

NOW_MS = 1_776_149_990_532  # 2026-04-14T06:59:50Z


def a_key(**fields: Any) -> KeyInformation:
    """Build a key as in Bybit's documentation, without the areas that we do not use."""
    documented = {
        "id": "2208369",
        "apiKey": "XXXXXXXX",
        "secret": "",
        "readOnly": 1,
        "permissions": {"ContractTrade": ["Order", "Position"], "Spot": ["SpotTrade"], "Wallet": [], "Options": None},
        "ips": ["18.181.170.164"],
        "deadlineDay": -2,
        "expiredAt": "1970-01-01T00:00:00Z",
    }
    return msgspec.json.decode(msgspec.json.encode(documented | fields), type=KeyInformation)


def test_documented_read_only_key_is_accepted_and_does_not_expire() -> None:
    """It lists trading areas, but only `readOnly` decides."""
    verdict = judge_key(a_key(), now_ms=NOW_MS, may_trade=False)

    assert verdict == (None, [], None)


@pytest.mark.parametrize("ips", [[], ["*"]])
@pytest.mark.parametrize(
    ("expires", "is_refused", "warning"),
    [
        ("2026-06-14T00:00:00Z", False, None),
        ("2026-04-20T00:00:00Z", False, "expires in 6 days"),
        ("2026-04-14T10:00:00Z", False, "expires today"),
        ("2026-04-13T00:00:00Z", True, None),
        ("", False, None),
        ("soon", False, None),
    ],
)
def test_expiry_is_announced_a_week_ahead(ips: list[str], expires: str, is_refused: bool, warning: str | None) -> None:
    """Keys that are not bound to addresses expire after 90 days, so the operator is warned."""
    verdict = judge_key(a_key(ips=ips, expiredAt=expires), now_ms=NOW_MS, may_trade=False)

    assert (verdict.refusal is not None) == is_refused
    assert [each for each in verdict.warnings if "expires" in each] == ([] if warning is None else verdict.warnings)
    assert warning is None or warning in verdict.warnings[0]


def test_refusal_of_a_key_that_may_withdraw_says_so() -> None:
    """It is the most dangerous kind of key."""
    verdict = judge_key(a_key(readOnly=0, permissions={"Wallet": ["Withdraw"]}), now_ms=NOW_MS, may_trade=False)

    assert "may withdraw" in (verdict.refusal or "")


def test_warnings_list_missing_permissions_and_their_effect() -> None:
    """Without them parts of the account are missing, and the operator must see why."""
    warnings = judge_key(a_key(permissions={}), now_ms=NOW_MS, may_trade=False).warnings

    assert any("Spot" in each and "loans" in each for each in warnings)
    assert any("ContractTrade" in each and "positions" in each for each in warnings)


def test_key_that_bybit_cannot_describe_is_used_only_if_it_may_trade() -> None:
    """Keys of demo trading may trade; what such a key may do is not reported, and the operator must see that."""
    refused, used = (judge_undescribed_key(may_trade=may_trade) for may_trade in (False, True))

    assert "BYBIT_ALLOW_TRADING_KEY=true" in (refused.refusal or "")
    assert "demo trading" in (refused.refusal or "")
    assert (used.refusal, used.expires_at) == (None, None)
    assert "rights and expiry are unknown" in used.warnings[0]
