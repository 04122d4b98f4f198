"""Composition of a shard's use of Bybit's REST: key gate, gap filling, standing in for lines, polls."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from hedgelock_ingest.bybit.connection import Authenticate
from hedgelock_ingest.bybit.key_gate import KeyGate, KeyState
from hedgelock_ingest.bybit.line import Line
from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import KafkaError, KafkaUnavailable, KeyRefused, RestError
from hedgelock_ingest.kafka.consumer import follow_new
from hedgelock_ingest.kafka.topic_admin import partitions_to_read
from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.pipeline.gap_fill import GapFill
from hedgelock_ingest.pipeline.gap_fill_queue import GapFillQueue
from hedgelock_ingest.pipeline.poll_loop import Polling
from hedgelock_ingest.pipeline.receiver import Receiver
from hedgelock_ingest.pipeline.stand_in import StandIn
from hedgelock_ingest.pipeline.stream import Stream
from hedgelock_ingest.pipeline.symbol_watch import SymbolWatch
from hedgelock_ingest.protocol.auth import websocket_authentication
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.read_back import read_back

log = structlog.get_logger(__name__)

_NOT_ACCEPTED = "key_not_accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTiming:
    """
    Timeouts and retry delays of a start, in seconds.

    `key_timeout_s`: until Bybit has reported the key's permissions; then public lines open, and private ones wait.
    `clock_timeout_s`: until Bybit's time is known, which dates the end of a gap before the start.
    """

    key_timeout_s: float = 3.0
    clock_timeout_s: float = 1.0
    account_retry_s: float = 1.0
    read_back_retry_s: float = 0.5


def private_authentication(settings: Settings, now_ms: Callable[[], int]) -> Authenticate:
    """Return the login of private lines; `now_ms` is Bybit's time."""
    key, secret = settings.bybit_api_key, settings.bybit_api_secret
    assert key is not None
    assert secret is not None
    return lambda: websocket_authentication(key.get_secret_value(), secret.get_secret_value(), now_ms())


class RestService:
    """One shard's REST requests: key, account, gap filling, polls."""

    def __init__(
        self,
        rest: RestClient,
        settings: Settings,
        receiver: Receiver,
        stream: Stream,
        private_lines: Sequence[Line],
        queue: GapFillQueue,
        *,
        feeds: Sequence[str],
        journal_id: str,
        begins_with_gap: bool,
        clock: Clock,
        timing: StartTiming | None = None,
    ) -> None:
        """
        Prepare, and pause private lines until the key is accepted; nothing is requested.

        Args:
            rest: Sends the requests; closed at the end of `run`.
            settings: Key and intervals of polls.
            receiver: Receives the answers.
            stream: Publishes them.
            private_lines: Lines of the account; empty if this shard does not carry it.
            queue: Feeds whose gaps are to be filled, as the receiver reports them.
            feeds: All feeds, such as `linear:publicTrade.BTCUSDT`.
            journal_id: Identifies this shard's records, which are not read back.
            begins_with_gap: Whether an earlier process has left frames in the journal.
            clock: Used for waits.
            timing: Timeouts of the start.
        """
        self.rest = rest
        self.gate = KeyGate(rest, may_trade=settings.bybit_allow_trading_key, on_change=self._key_changed, clock=clock)
        self.stand_in = StandIn(
            rest,
            receiver,
            receiver.without_line,
            may_request=lambda: not stream.is_paused,
            may_request_account=lambda: self.gate.is_open,
            clock=clock,
        )
        self.gap_fill = GapFill(
            rest,
            receiver,
            stream.last_seen_ms,
            queue,
            may_request=lambda: not stream.is_paused,
            on_rise=self.stand_in.end_requests,
            clock=clock,
        )
        self.symbols = SymbolWatch(rest, receiver, feeds, clock=clock)
        self.polling: Polling | None = None
        self._settings = settings
        self._receiver = receiver
        self._stream = stream
        self._private_lines = private_lines
        self._journal_id = journal_id
        self._begins_with_gap = begins_with_gap
        self._clock = clock
        self._timing = timing or StartTiming()
        for line in private_lines:
            line.pause(_NOT_ACCEPTED)
        if private_lines and settings.bybit_polls:
            self.polling = Polling(
                rest,
                receiver,
                collateral_interval_s=settings.bybit_collateral_poll_interval,
                loan_interval_s=settings.bybit_loan_poll_interval,
                may_request=lambda: self.gate.is_open and not stream.is_paused,
                clock=clock,
            )

    @property
    def has_account(self) -> bool:
        """Whether this shard carries the account."""
        return bool(self._private_lines)

    async def begin(self) -> None:
        """
        Check the key, within a timeout; without an account, request Bybit's time if there is a gap.

        Raises:
            KeyRefused: Bybit refuses the key, or it may trade.
        """
        if not self.rest.has_key:
            consequence = "only public feeds run; set BYBIT_API_KEY and BYBIT_API_SECRET for more"
            log.warning("api_key_missing", consequence=consequence)
        if not self.has_account:
            if self._begins_with_gap:
                await self._request_clock()
            return
        try:
            async with self._clock.timeout(self._timing.key_timeout_s):
                status = await self.gate.check()
        except TimeoutError:
            waited_s = self._timing.key_timeout_s
            reason = f"Bybit did not report the API key's permissions within {waited_s:g} s"
            log.warning("api_key_unknown", reason=reason)
            return
        if status.state is KeyState.REFUSED:
            raise KeyRefused(status.reason or "the API key is refused")

    async def run(self) -> None:
        """Run all REST tasks until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.gap_fill.run(), name="gap_fill")
                tasks.create_task(self.stand_in.run(), name="stand_in")
                tasks.create_task(self.symbols.run(), name="symbols")
                if self.has_account:
                    tasks.create_task(self.gate.watch(), name="key")
                    tasks.create_task(self._log_account(), name="account")
                if self.polling is not None:
                    tasks.create_task(self.polling.run(), name="polling")
                elif self.has_account:
                    tasks.create_task(self._read_back(), name="read_back")
        finally:
            self.rest.close()

    async def _request_clock(self) -> None:
        try:
            async with self._clock.timeout(self._timing.clock_timeout_s):
                await self.rest.request_clock()
        except TimeoutError:
            waited_s = self._timing.clock_timeout_s
            log.warning("clock_unknown", reason=f"Bybit did not report its time within {waited_s:g} s")
        except RestError as error:
            log.warning("clock_unknown", reason=str(error))

    async def _log_account(self) -> None:
        """Log the kind of account once, as soon as the key is accepted."""
        while not self.gate.is_open:  # the gate checks the key at intervals
            await self._clock.sleep(self._timing.account_retry_s)
        try:
            information = await self.rest.account_information()
        except RestError as error:
            log.warning("account_information_missing", reason=str(error))
            return
        log.info(
            "account_information_received",
            margin_mode=information.margin_mode,
            unified=information.unified_margin_status,
        )
        for concern in information.concerns:
            log.warning("account_not_suitable", reason=concern)

    async def _read_back(self) -> None:
        """Read polls of other processes into the account from Kafka, and retry while Kafka is unavailable."""
        while True:
            await self._clock.sleep(self._timing.read_back_retry_s)
            if not self._stream.stats.producer_opened:  # the topics may not be there yet
                continue
            try:
                await self._take_polls()
            except KafkaError as error:
                log.warning("polls_not_read", reason=str(error))

    async def _take_polls(self) -> None:
        own_journal_id = self._journal_id.encode()
        topic, types = self._settings.topic(Topic.ACCOUNT_RAW), [CONTRACTS[Topic.ACCOUNT_RAW].message.__name__]
        partitions = await partitions_to_read(self._settings, [topic])
        if topic not in partitions:
            raise KafkaUnavailable(f"no topic {topic}")
        async for group in follow_new(self._settings, topic, partitions[topic]):
            for record in group:
                if record.value is None or record.journal_id == own_journal_id or not record.is_of(types):
                    continue
                answer = read_back(record.value, self._settings.bybit_account_id)
                if answer is not None:
                    self._receiver.answer_received(answer)

    def _key_changed(self, is_accepted: bool) -> None:
        for line in self._private_lines:
            if is_accepted:
                line.resume(_NOT_ACCEPTED)
            else:
                line.pause(_NOT_ACCEPTED)
