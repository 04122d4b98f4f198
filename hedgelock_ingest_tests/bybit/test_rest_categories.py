"""Lists of the account: which categories and settle coins are requested, and what a refusal leaves out."""

from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
from pydantic import SecretStr

from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.bybit.rest_port import Credentials, RestRequest, RestResponse, RestTiming
from hedgelock_ingest.errors import RestRefused
from hedgelock_ingest.protocol.rate_limits import LimitHeaders
from hedgelock_ingest.protocol.rest_messages import Purpose
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.builders import AT_MS

SETTINGS = Settings(
    bybit_api_key=SecretStr("key"), bybit_api_secret=SecretStr("secret"), bybit_rest_requests_per_second=50
)


class EmptyLists:
    """An account without positions and orders, which is refused some categories."""

    def __init__(self, *refused: str) -> None:
        self.requests: list[RestRequest] = []
        self._refused = refused

    def open(
        self, url: str, credentials: Credentials | None, *, now_ms: Callable[[], int], timing: RestTiming
    ) -> "EmptyLists":
        return self

    def close(self) -> None:
        pass

    async def send(self, request: RestRequest) -> RestResponse:
        """Answer with an empty list."""
        if request.method == "get_server_time":
            return RestResponse(msgspec.Raw(b"{}"), AT_MS, LimitHeaders())
        self.requests.append(request)
        if request.parameters["category"] in self._refused:
            raise RestRefused("Bybit answered 10005: Permission denied", code=10005)
        return RestResponse(msgspec.Raw(b'{"list":[],"nextPageCursor":""}'), AT_MS, LimitHeaders())

    def asked(self, method: str) -> Counter[tuple[object, object]]:
        """Count category and settle coin of the requests by one method."""
        named = [one.parameters for one in self.requests if one.method == method]
        return Counter((parameters["category"], parameters.get("settleCoin")) for parameters in named)


def a_client(lists: EmptyLists) -> RestClient:
    """Make a client of an account in memory."""
    return RestClient(SETTINGS, open_http=lists.open)


LINEAR = [("linear", "USDT"), ("linear", "USDC")]


async def test_every_category_of_the_stream_is_requested() -> None:
    """The private stream carries inverse and option, too; a list of linear positions does not cover them."""
    lists = EmptyLists()
    rest = a_client(lists)

    positions = await rest.positions(Purpose.SNAPSHOT)
    orders = await rest.orders(Purpose.GAP_FILL, since_ms=AT_MS)
    executions = await rest.executions(Purpose.GAP_FILL, since_ms=AT_MS)

    assert lists.asked("get_positions") == Counter([*LINEAR, ("inverse", None), ("option", None)])
    assert lists.asked("get_open_orders") == Counter([*LINEAR, ("inverse", None), ("option", None), ("spot", None)])
    every = Counter((category, None) for category in ("linear", "inverse", "option", "spot"))
    assert lists.asked("get_order_history") == lists.asked("get_executions") == every
    assert [answer.silent_about for answer in (positions, orders, executions)] == [{}, {}, {}]


async def test_refused_category_is_named_in_the_answer() -> None:
    """Many keys have no permission for options; the rest of the account is still known."""
    answer = await a_client(EmptyLists("option")).positions(Purpose.SNAPSHOT)
    assert set(answer.results) == {"linear", "inverse"}
    assert set(answer.silent_about) == {"option"}
    assert "permission Options" in answer.silent_about["option"]


async def test_key_without_spot_has_the_executions_of_contracts() -> None:
    """Such keys are common; the gap names spot as missing."""
    rest = a_client(EmptyLists("spot"))
    for answer in (
        await rest.executions(Purpose.GAP_FILL, since_ms=AT_MS),
        await rest.orders(Purpose.GAP_FILL, since_ms=AT_MS),
    ):
        assert set(answer.results) == {"linear", "inverse", "option"}
        assert set(answer.silent_about) == {"spot"}


async def test_refusal_of_linear_positions_is_an_error() -> None:
    """It is what an account with a loan is hedged with, so the part is requested again and health names it."""
    with pytest.raises(RestRefused, match="Contract - Positions"):
        await a_client(EmptyLists("linear")).positions(Purpose.SNAPSHOT)
