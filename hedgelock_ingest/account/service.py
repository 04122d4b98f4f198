"""Composition of a shard's use of Bybit's REST: key gate, gap filling, polls."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from random import Random

import structlog

from hedgelock_ingest.bybit.connection import Authenticate
from hedgelock_ingest.bybit.key_gate import KeyGate, KeyState
from hedgelock_ingest.bybit.line import Line
from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.bybit.rest_port import OpenHttp
from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import KafkaUnavailable, KeyRefused, RestError
from hedgelock_ingest.kafka.consumer import follow
from hedgelock_ingest.kafka.topics import check_topics
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.pipeline.gap_fill import GapFill
from hedgelock_ingest.pipeline.polling import Polling
from hedgelock_ingest.pipeline.receiver import Receiver
from hedgelock_ingest.pipeline.stream import Stream
from hedgelock_ingest.protocol.auth import websocket_authentication
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.read_back import read_back

log = structlog.get_logger(__name__)

_NOT_ACCEPTED = "key_not_accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTiming:
    """
    Timeouts and retry delays of a start, in seconds.

    `key_patience_s`: until Bybit has reported the key's permissions; then public lines open, and private ones wait.
    `clock_patience_s`: until Bybit's time is known, which dates the end of a gap before the start.
    """

    key_patience_s: float = 3.0
    clock_patience_s: float = 1.0
    account_retry_s: float = 1.0
    read_back_retry_s: float = 0.5


class RestSide:
    """
    One shard's REST requests: key, account, gap filling, polls.

    Created before the lines, which need its clock; `join` connects the destination of its answers.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        open_http: OpenHttp,
        random: Random | None = None,
        timing: StartTiming | None = None,
    ) -> None:
        """Prepare; nothing is connected."""
        self.rest = RestClient(settings, clock=clock, open_http=open_http, random=random)
        self.gate = KeyGate(
            self.rest, may_trade=settings.bybit_allow_trading_key, on_change=self._key_changed, clock=clock
        )
        self._clock = clock
        self._timing = timing or StartTiming()
        self.polling: Polling | None = None
        self._settings = settings
        self._gap_fill: GapFill | None = None
        self._begins_with_gap = False
        self._reading_back: Callable[[], Coroutine[None, None, None]] | None = None
        self._private_lines: list[Line] = []

    @property
    def healing(self) -> GapFill:
        """Gap filling of the feeds; available from `join` on."""
        assert self._gap_fill is not None
        return self._gap_fill

    @property
    def has_account(self) -> bool:
        """Whether this shard carries the account."""
        return bool(self._private_lines)

    def authentication(self) -> Authenticate:
        """Return the login arguments of private lines."""
        key, secret = self._settings.bybit_api_key, self._settings.bybit_api_secret
        assert key is not None
        assert secret is not None
        return lambda: websocket_authentication(key.get_secret_value(), secret.get_secret_value(), self.rest.now_ms())

    def join(
        self,
        receiver: Receiver,
        stream: Stream,
        private_lines: Sequence[Line],
        *,
        journal_id: str,
        feeds_with_gap: Sequence[str],
    ) -> None:
        """
        Connect gap filling to the receiver, and pause private lines until the key is accepted.

        Args:
            receiver: Receives the answers.
            stream: Publishes them.
            private_lines: Lines of the account; empty if this shard does not carry it.
            journal_id: Identifies this shard's records, which are not read back.
            feeds_with_gap: Feeds of which an earlier process has left frames in the journal.
        """
        self._gap_fill = receiver.watcher = GapFill(
            self.rest, receiver, stream.last_seen_ms, feeds_with_gap=feeds_with_gap, clock=self._clock
        )
        self._begins_with_gap = bool(feeds_with_gap)
        self._private_lines = list(private_lines)
        for line in private_lines:
            line.pause(_NOT_ACCEPTED)
        if private_lines and self._settings.bybit_polls:
            self.polling = Polling(
                self.rest,
                receiver,
                collateral_interval_s=self._settings.bybit_collateral_poll_interval,
                loan_interval_s=self._settings.bybit_loan_poll_interval,
                may_ask=lambda: self.gate.is_open and not stream.is_paused,
                has_wallet_feed=lambda: "private:wallet" not in receiver.without_line,
                clock=self._clock,
            )
        elif private_lines:
            self._reading_back = lambda: self._read_back(receiver, stream, journal_id)

    async def begin(self) -> None:
        """
        Check the key, within a timeout; without an account, learn Bybit's time if there is a gap.

        Raises:
            KeyRefused: Bybit refuses the key, or it may trade.
        """
        if not self.rest.has_key:
            consequence = "only public feeds run; set BYBIT_API_KEY and BYBIT_API_SECRET for more"
            log.warning("api_key_missing", consequence=consequence)
        if not self.has_account:
            if self._begins_with_gap:
                await self._learn_clock()
            return
        try:
            async with self._clock.timeout(self._timing.key_patience_s):
                status = await self.gate.check()
        except TimeoutError:
            waited_s = self._timing.key_patience_s
            reason = f"Bybit did not report the API key's permissions within {waited_s:g} s"
            log.warning("api_key_unknown", reason=reason)
            return
        if status.state is KeyState.REFUSED:
            raise KeyRefused(status.reason or "the API key is refused")

    async def run(self) -> None:
        """Run all REST tasks until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.healing.run(), name="gap_fill")
                if self.has_account:
                    tasks.create_task(self.gate.watch(), name="key")
                    tasks.create_task(self._log_account(), name="account")
                if self.polling is not None:
                    tasks.create_task(self.polling.run(), name="polling")
                if self._reading_back is not None:
                    tasks.create_task(self._reading_back(), name="read_back")
        finally:
            self.rest.close()

    async def _learn_clock(self) -> None:
        try:
            async with self._clock.timeout(self._timing.clock_patience_s):
                await self.rest.learn_clock()
        except TimeoutError:
            waited_s = self._timing.clock_patience_s
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

    async def _read_back(self, receiver: Receiver, stream: Stream, journal_id: str) -> None:
        """Read polls of other processes into the account from Kafka, and retry while Kafka is unavailable."""
        while True:
            await self._clock.sleep(self._timing.read_back_retry_s)
            if not stream.stats.producer_opened:  # the topics may not be there yet
                continue
            try:
                await self._take_polls(receiver, journal_id.encode())
            except KafkaUnavailable as error:
                log.warning("polls_not_read", reason=str(error))

    async def _take_polls(self, receiver: Receiver, own_journal_id: bytes) -> None:
        topic = self._settings.topic(Topic.ACCOUNT_RAW)
        partitions = {report.name: report.partitions for report in await check_topics(self._settings) if report.exists}
        if topic not in partitions:
            raise KafkaUnavailable(f"no topic {topic}")
        async for group in follow(self._settings, {topic: partitions[topic]}, from_end=True):
            for record in group:
                if record.value is None or record.journal_id == own_journal_id:
                    continue
                answer = read_back(record.value, self._settings.bybit_account_id)
                if answer is not None:
                    receiver.answer_received(answer)

    def _key_changed(self, is_accepted: bool) -> None:
        for line in self._private_lines:
            if is_accepted:
                line.resume(_NOT_ACCEPTED)
            else:
                line.pause(_NOT_ACCEPTED)
