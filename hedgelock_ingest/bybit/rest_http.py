"""HTTP session on pybit, adapted to a service: Bybit's clock, raw results, our errors."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
import requests
from pybit.crypto_loan import CryptoLoan
from pybit.unified_trading import HTTP
from urllib3.exceptions import HTTPError

from hedgelock_ingest.bybit.connection_failure import Answer, Target
from hedgelock_ingest.bybit.rest_port import Credentials, RestRequest, RestResponse, RestTiming
from hedgelock_ingest.bybit.socket_port import USER_AGENT
from hedgelock_ingest.bybit.threads import in_daemon_thread
from hedgelock_ingest.errors import RestError, RestUnavailable
from hedgelock_ingest.protocol.messages import DECODE_ERRORS
from hedgelock_ingest.protocol.rate_limits import LimitHeaders
from hedgelock_ingest.protocol.rest_codes import LIMITED_S, error_for_code, error_for_status, is_refused_unread
from hedgelock_ingest.redaction import Redaction
from hedgelock_ingest.settings.proxies import proxy_for

_MAX_MESSAGE_LENGTH = 200


class _Envelope(msgspec.Struct, rename="camel"):
    """Source: Bybit V5, Integration Guidance, "Common response parameters"."""

    ret_code: int
    result: msgspec.Raw = msgspec.Raw(b"{}")
    ret_msg: str = ""
    time: int = 0


_decode = msgspec.json.Decoder(_Envelope).decode


class BybitHttp(HTTP):  # type: ignore[misc]  # pybit has no types
    """
    pybit's session without its sleeps, its retries, and its error texts, which contain our request.

    Used by one thread at a time.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials | None,
        *,
        now_ms: Callable[[], int],
        connect_timeout_s: float,
        read_timeout_s: float,
    ) -> None:
        """
        Prepare a session; nothing is connected.

        Args:
            url: Base URL of Bybit or of a simulated exchange, without a path.
            credentials: None for public endpoints only.
            now_ms: Bybit's clock.
            connect_timeout_s: Until a connection is open.
            read_timeout_s: Between two reads of an answer.
        """
        super().__init__(
            timeout=(connect_timeout_s, read_timeout_s),
            max_retries=1,
            log_requests=False,
            api_key=credentials.key if credentials else None,
            api_secret=credentials.secret if credentials else None,
        )
        self.endpoint = url
        self._now_ms = now_ms
        self._redaction = Redaction(credentials or ())
        self.client.headers["User-Agent"] = USER_AGENT
        # The library would read the proxies of the environment by other rules, and log-ins from .netrc.
        self.client.trust_env = False
        # A redirect leads to a page of the network, which must not get signed requests.
        self.client.max_redirects = 0
        self.client.verify = os.environ.get("SSL_CERT_FILE") or True
        proxy = proxy_for(url, os.environ)
        if proxy is not None:
            self.client.proxies = {"all": proxy.url}
        self._target = Target(url, proxy)

    def __repr__(self) -> str:
        return f"BybitHttp({self.endpoint})"

    def send(self, request: RestRequest) -> RestResponse:
        """
        Send one request and wait for its answer; blocks.

        Raises:
            RestError: Its class states what may be done.
        """
        try:
            response = getattr(self, request.method)(**request.parameters)
        except (requests.RequestException, HTTPError, OSError) as error:
            if isinstance(error, requests.TooManyRedirects) and error.response is not None:
                raise RestUnavailable(self._foreign(error.response)) from error
            raise RestUnavailable(self._target.failure(error).text) from error
        except Exception as error:  # an internal error of pybit must not end the caller
            raise RestUnavailable(f"pybit could not send {request.method} ({type(error).__name__})") from error
        return self._response(response)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def _response(self, response: requests.Response) -> RestResponse:
        status = response.status_code
        if is_refused_unread(status):
            raise self._status_error(response)
        limit = _limit(response.headers)
        try:
            envelope = _decode(response.content)
        except DECODE_ERRORS:
            raise self._status_error(response) from None
        if envelope.ret_code != 0:
            message = self._redaction.text(envelope.ret_msg[:_MAX_MESSAGE_LENGTH])
            raise error_for_code(envelope.ret_code, message, wait_s=limit.wait_s(self._now_ms(), LIMITED_S))
        if status != 200:
            raise self._status_error(response)
        return RestResponse(envelope.result, envelope.time, limit)

    def _status_error(self, response: requests.Response) -> RestError:
        is_foreign = _answer(response).is_foreign
        return error_for_status(response.status_code, self._foreign(response), is_foreign=is_foreign)

    def _foreign(self, response: requests.Response) -> str:
        """Explain an answer that is not Bybit's."""
        return self._target.answer(_answer(response)).text

    def get_legacy_loans(self, **parameters: str | int) -> requests.Response:
        """Request loans of the legacy kind; pybit's method for it raises an AttributeError."""
        path = f"{self.endpoint}{CryptoLoan.GET_UNPAID_LOANS}"
        response: requests.Response = self._submit_request(method="GET", path=path, query=parameters, auth=True)
        return response

    # The following methods override pybit's.

    def _prepare_headers(
        self, payload: str, recv_window: int, content_type: str = "application/json"
    ) -> dict[str, str]:
        timestamp = self._now_ms()
        return {
            "Content-Type": content_type,
            "X-BAPI-API-KEY": self.api_key or "",
            "X-BAPI-SIGN": self._auth(payload=payload, recv_window=recv_window, timestamp=timestamp),
            "X-BAPI-TIMESTAMP": str(timestamp),
            "X-BAPI-RECV-WINDOW": str(recv_window),
        }

    def _check_status_code(self, response: requests.Response, *_: object) -> None:
        """Do nothing; `send` checks the status."""

    def _handle_response(self, response: requests.Response, *_: object) -> requests.Response:
        return response


class ThreadedHttp:
    """Sends each request in a daemon thread, which does not block the program's exit; one request at a time."""

    def __init__(self, http: BybitHttp) -> None:
        """Use a session exclusively."""
        self._http = http

    async def send(self, request: RestRequest) -> RestResponse:
        """
        Send one request and wait for its answer.

        Raises:
            RestError: Its class states what may be done.
        """
        return await in_daemon_thread(partial(self._http.send, request), name="rest")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def open_http(
    url: str, credentials: Credentials | None, *, now_ms: Callable[[], int], timing: RestTiming
) -> ThreadedHttp:
    """Prepare a session with Bybit; nothing is connected."""
    return ThreadedHttp(
        BybitHttp(
            url,
            credentials,
            now_ms=now_ms,
            connect_timeout_s=timing.connect_timeout_s,
            read_timeout_s=timing.read_timeout_s,
        )
    )


def _limit(headers: Mapping[str, Any]) -> LimitHeaders:
    status, reset = headers.get("X-Bapi-Limit-Status"), headers.get("X-Bapi-Limit-Reset-Timestamp")
    return LimitHeaders(_integer(status), _integer(reset))


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) <= 15 else None


def _answer(response: requests.Response) -> Answer:
    return Answer(response.status_code, response.headers, response.content)
