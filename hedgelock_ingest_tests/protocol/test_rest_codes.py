"""Errors for Bybit's codes and HTTP statuses."""

import pytest

from hedgelock_ingest.errors import ClockRefused, RestError, RestLimited, RestRefused, RestUnavailable
from hedgelock_ingest.protocol.rest_codes import error_for_code, error_for_status, is_refused_unread


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (-1, ClockRefused),
        (10002, ClockRefused),
        (429, RestUnavailable),
        (10000, RestUnavailable),
        (10016, RestUnavailable),
        (10006, RestLimited),
        (10018, RestLimited),
        (10001, RestRefused),
        (10003, RestRefused),
        (10005, RestRefused),
        (10032, RestRefused),
        (33004, RestRefused),
        (148001, RestRefused),
    ],
)
def test_each_code_determines_whether_to_retry(code: int, kind: type[RestError]) -> None:
    """Retrying a permanent refusal wastes the rate limit; not retrying a transient one loses data."""
    error = error_for_code(code, "text of Bybit's")

    assert type(error) is kind
    assert str(code) in str(error) or code == 10018


def test_unknown_code_carries_bybits_message() -> None:
    """Codes that Bybit adds later must stay visible."""
    assert "brand new" in str(error_for_code(999_999, "brand new"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, RestLimited),
        (407, RestUnavailable),
        (429, RestUnavailable),
        (500, RestUnavailable),
    ],
)
def test_statuses_of_the_proxy_are_errors_whatever_the_body(status: int, kind: type[RestError]) -> None:
    """Their bodies are HTML pages."""
    assert is_refused_unread(status)
    error = error_for_status(status, "what answered; what to do")
    assert type(error) is kind
    assert str(error).startswith("what answered; what to do")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, RestUnavailable),
        (400, RestRefused),
        (401, RestRefused),
        (404, RestRefused),
        (451, RestUnavailable),
        (204, RestUnavailable),
        (302, RestUnavailable),
        (418, RestUnavailable),
    ],
)
def test_other_statuses_leave_it_to_the_body(status: int, kind: type[RestError]) -> None:
    """The body explains them by `retCode`; a page in its place may be gone later, a refusal not."""
    assert not is_refused_unread(status)
    assert type(error_for_status(status, "what answered")) is kind


@pytest.mark.parametrize("status", [400, 401])
def test_page_of_another_server_is_no_refusal(status: int) -> None:
    """A log-in page of the network would end the process as if Bybit had refused the key."""
    error = error_for_status(status, "what answered", is_foreign=True)
    assert type(error) is RestUnavailable
    assert str(error) == "what answered"
