"""
Polls without the stream, for an orchestrator: request once from Bybit, publish to `account_raw`, return the result.

A `Poller` makes polls over one connection each to Bybit and to Kafka. Each message is completed with the latest parts
that the topic has of the account; what the stream adds during the session is read as well.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from decimal import Decimal
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
import structlog
from pydantic import ValidationError

from hedgelock_ingest.bybit.key_gate import require_key
from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.errors import KafkaError, RestUnavailable, SettingsInvalid
from hedgelock_ingest.kafka.addresses import partition_for
from hedgelock_ingest.kafka.aiokafka_cluster import kafka_publisher
from hedgelock_ingest.kafka.publish_all import publish_all
from hedgelock_ingest.kafka.tail import Filter, tail
from hedgelock_ingest.models.account import AccountRaw
from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.pipeline.receiver import new_trace
from hedgelock_ingest.protocol.frames import REST, Frame
from hedgelock_ingest.protocol.rest_messages import LoanPositionResult, Part, Purpose, RestAnswer
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.known_parts import KnownParts
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.translator import Translator

log = structlog.get_logger(__name__)

_RECORDS_PATIENCE_S = 1.5
"""How long the first poll of a session waits for the topic's last records, from the start of the session on."""

_READ_RETRY_S = 1.0
_CLOSE_TIMEOUT_S = 2.0

_RECORDS_READ = 200
"""Last messages of the account that are read: those of several minutes, as polls of other parts follow each other."""


class PollResult(NamedTuple):
    """
    Result of one poll: the part polled, the message as published with all parts, and the total duration.

    `loan` is Bybit's answer per coin of a poll of the collateral, which the message only sums up.
    """

    part: Part
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
        self._known = KnownParts()
        self._reading: asyncio.Task[None] | None = None
        self._has_read = asyncio.Event()
        self._records_until_s = 0.0

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
        self._reading = asyncio.create_task(self._read_account(), name="account_records")  # `_close` ends it
        self._records_until_s = self._clock.monotonic() + _RECORDS_PATIENCE_S
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
        record, dead_letters = poll_records(self._settings, self._count, answer, self._clock.wall_ns())
        await self._wait_for_records()
        message = self._known.complete(AccountRaw.model_validate_json(record.value), is_whole=not dead_letters)
        record = msgspec.structs.replace(record, value=message.model_dump_json(by_alias=True).encode())
        await publish_all(self._publisher, [record, *dead_letters])
        took_s = self._clock.monotonic() - began_s
        log.info("account_polled", part=answer.part, trace_id=str(message.trace_id), duration_s=round(took_s, 3))
        return PollResult(answer.part, message, took_s, _loan_in(answer))

    async def _wait_for_records(self) -> None:
        """Wait for the topic's last records, but not long: without them, parts that were not polled are unknown."""
        timeout_s = max(0.0, self._records_until_s - self._clock.monotonic())
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(timeout_s):
                await self._has_read.wait()

    async def _read_account(self) -> None:
        """Read the last records of the account, and those that the stream adds; retry while Kafka does not answer."""
        is_logged = False
        while True:
            try:
                await self._follow_account()
            except KafkaError as error:
                if not is_logged:
                    log.warning("last_record_not_read", reason=str(error))
                is_logged = True
                await self._clock.sleep(_READ_RETRY_S)

    async def _follow_account(self) -> None:
        account_id = self._settings.bybit_account_id
        counts = {report.name: report.partitions for report in self._publisher.topics}
        partitions = counts[self._settings.topic(Topic.ACCOUNT_RAW)]
        message_type = CONTRACTS[Topic.ACCOUNT_RAW].message.__name__
        only = Filter(partition_for(account_id.encode(), partitions), account_id, message_type)
        records = tail(
            self._settings,
            Topic.ACCOUNT_RAW,
            count=_RECORDS_READ,
            follow=True,
            only=only,
            on_caught_up=self._has_read.set,
        )
        async with aclosing(records):
            async for record in records:
                message = _account_raw(record.value)
                if message is not None:
                    self._known.add(message)

    async def _close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            done, _ = await asyncio.wait([self._reading], timeout=_CLOSE_TIMEOUT_S)
            errors = [task.exception() for task in done if not task.cancelled()]
            if errors and errors[0] is not None:
                log.error("last_record_not_read", reason=type(errors[0]).__name__)
        self._rest.close()
        await self._publisher.close()


def _account_raw(value: bytes | None) -> AccountRaw | None:
    try:
        return AccountRaw.model_validate_json(value or b"")
    except ValidationError:
        return None


def _loan_in(answer: RestAnswer) -> LoanPositionResult | None:
    if answer.part is not Part.COLLATERAL:
        return None
    return msgspec.json.decode(answer.results["position"], type=LoanPositionResult)


def poll_records(settings: Settings, number: int, answer: RestAnswer, received_ns: int) -> tuple[Record, list[Record]]:
    """
    Build the record for `account_raw`, and the dead letters of rows that cannot be decoded.

    Only the stream publishes the merged view.

    Raises:
        RestUnavailable: The answer cannot be decoded.
    """
    frame = Frame(f"{REST}-{answer.part}", received_ns, new_trace(), msgspec.json.encode(answer))
    records = Translator(account_id=settings.bybit_account_id).translate(number, frame)
    dead_letters = [record for record in records if record.topic is Topic.INGEST_DEAD_LETTERS]
    for record in records:
        if record.topic is Topic.ACCOUNT_RAW:
            return record, dead_letters
    reason = next((msgspec.json.decode(record.value)["reason"] for record in dead_letters), "it has no content")
    raise RestUnavailable(f"Bybit's answer about {answer.part} cannot be decoded: {reason}")
