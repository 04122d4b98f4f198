"""Port between the REST client and the HTTP library."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from hedgelock_ingest.protocol.rate_limits import LimitHeaders


@dataclass(frozen=True, slots=True, kw_only=True)
class RestTiming:
    """
    Timeouts and retries of a request, in seconds; `attempts` includes the first one.

    `answer_timeout_s` bounds an answer that arrives very slowly, which the other two timeouts do not end.
    """

    connect_timeout_s: float = 10.0
    read_timeout_s: float = 10.0
    answer_timeout_s: float = 25.0
    attempts: int = 4
    retry_initial_s: float = 0.5
    retry_max_s: float = 5.0
    longest_wait_s: float = 10.0


class Credentials(NamedTuple):
    """A key and its secret; never shown."""

    key: str
    secret: str

    def __repr__(self) -> str:
        return "Credentials(<hidden>)"


class RestRequest(NamedTuple):
    """
    One REST request: the name of pybit's method, and its parameters.

    An optional one is sent once, and only while REST answers; its failure does not count for other requests.
    """

    method: str
    parameters: Mapping[str, str | int] = {}
    is_signed: bool = True
    is_optional: bool = False


class RestResponse(NamedTuple):
    """Bybit's unchanged `result`, its time in milliseconds (0 if absent), and the rate limit of the endpoint."""

    result: msgspec.Raw
    time_ms: int
    limit: LimitHeaders


class Http(Protocol):
    """One HTTP session, used for one request at a time."""

    async def send(self, request: RestRequest) -> RestResponse:
        """
        Send one request and wait for its answer.

        Raises:
            RestError: Its class states what may be done.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class OpenHttp(Protocol):
    """Factory of sessions."""

    def __call__(
        self, url: str, credentials: Credentials | None, *, now_ms: Callable[[], int], timing: RestTiming
    ) -> Http:
        """Prepare a session; `now_ms` is Bybit's clock. Nothing is connected."""
        ...
