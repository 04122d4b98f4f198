"""
Polls without the stream, for an orchestrator: request once from Bybit, publish to `account_raw`, return the result.

A `Poller` makes polls over one connection each to Bybit and to Kafka.
"""

import uuid
from collections.abc import Awaitable, Callable
from decimal import Decimal
from types import TracebackType
from typing import NamedTuple, Self

import msgspec

from hedgelock_ingest.bybit.key_gate import require_key
from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.errors import RestUnavailable, SettingsInvalid
from hedgelock_ingest.kafka.aiokafka_cluster import kafka_publisher
from hedgelock_ingest.kafka.publish_all import publish_all
from hedgelock_ingest.models.account import AccountRaw
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.pipeline.receiver import new_trace
from hedgelock_ingest.protocol.frames import REST, Frame
from hedgelock_ingest.protocol.rest_messages import LoanPositionResult, Part, Purpose, RestAnswer
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.translator import Translator


class PollResult(NamedTuple):
    """
    Result of one poll: the message as published, and the total duration.

    `loan` is Bybit's answer per coin of a poll of the collateral, which the message only sums up.
    """

    message: AccountRaw
    took_s: float
    loan: LoanPositionResult | None = None


class Poller:
    """
    Polls over one session: `async with Poller(settings) as poller: await poller.collateral()`.

    Each record carries a journal id of this session and its number in it, like records of the stream. The caller may
    pass the numbers, each higher than the last; else they are counted.
    """

    def __init__(self, settings: Settings) -> None:
        """Prepare; nothing is connected."""
        self._settings = settings
        self._clock = SystemClock()
        self._rest = RestClient(settings, clock=self._clock)
        self._publisher = kafka_publisher(settings, uuid.uuid4().hex, clock=self._clock)
        self._count = 0

    async def __aenter__(self) -> Self:
        """
        Check the key, and connect to Kafka.

        Raises:
            SettingsInvalid: There is no key.
            KeyRefused: The key is refused.
            RestUnavailable: Bybit did not report the key's permissions.
            KafkaError: Kafka cannot be reached, or lacks a topic.
        """
        try:
            await self._check_key()
            await self._publisher.open(None, settle=False)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def collateral(self, number: int | None = None) -> PollResult:
        """Poll debt, collateral and LTV, and publish them."""
        return await self._poll(self._rest.collateral, number)

    async def loans(self, number: int | None = None) -> PollResult:
        """Poll all loans, and publish them."""
        return await self._poll(self._rest.loans, number)

    async def wallet(self, number: int | None = None) -> PollResult:
        """Poll all balances, and publish them."""
        return await self._poll(self._rest.wallet, number)

    async def price(self, coin: str) -> Decimal:
        """
        Request a coin's last price in USDT; nothing is published.

        Raises:
            RestError: Bybit does not answer, or does not trade the coin against USDT.
        """
        return await self._rest.last_price(f"{coin}USDT")

    async def _check_key(self) -> None:
        if not self._rest.has_key:
            raise SettingsInvalid(
                ["the account cannot be polled without a key: set BYBIT_API_KEY and BYBIT_API_SECRET"]
            )
        await require_key(self._rest, may_trade=self._settings.bybit_allow_trading_key)

    async def _poll(self, request: Callable[[Purpose], Awaitable[RestAnswer]], number: int | None) -> PollResult:
        began_s = self._clock.monotonic()
        answer = await request(Purpose.POLL)
        self._count = self._count + 1 if number is None else number
        record = _raw_record(self._settings, self._count, answer, self._clock.wall_ns())
        await publish_all(self._publisher, [record])
        message = AccountRaw.model_validate_json(record.value)
        return PollResult(message, self._clock.monotonic() - began_s, _loan_in(answer))

    async def _close(self) -> None:
        self._rest.close()
        await self._publisher.close()


def _loan_in(answer: RestAnswer) -> LoanPositionResult | None:
    if answer.part is not Part.COLLATERAL:
        return None
    return msgspec.json.decode(answer.results["position"], type=LoanPositionResult)


def _raw_record(settings: Settings, number: int, answer: RestAnswer, received_ns: int) -> Record:
    """
    Build the record for `account_raw`; only the stream publishes the merged view.

    Raises:
        RestUnavailable: The answer cannot be decoded.
    """
    frame = Frame(f"{REST}-{answer.part}", received_ns, new_trace(), msgspec.json.encode(answer))
    records = Translator(account_id=settings.bybit_account_id).translate(number, frame)
    for record in records:
        if record.topic is Topic.ACCOUNT_RAW:
            return record
    reason = next((msgspec.json.decode(record.value)["reason"] for record in records), "it has no content")
    raise RestUnavailable(f"Bybit's answer about {answer.part} cannot be decoded: {reason}")
