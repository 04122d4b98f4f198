"""Deliberate breaks of the product, each of which the simulation must find."""

from typing import Final, NamedTuple


class Break(NamedTuple):
    """A change of one place of the product: `old` occurs once in `file` of the package `hedgelock_ingest`."""

    name: str
    breaks: str
    file: str
    old: str
    new: str


_PUBLISHER: Final = "kafka/publisher.py"
_REMEDIES: Final = "kafka/remedies.py"
_BATCH_SENDER: Final = "kafka/batch_sender.py"
_RESUME: Final = "kafka/resume.py"
_PUBLISHING: Final = "pipeline/publishing.py"
_CHECKPOINTS: Final = "pipeline/checkpoints.py"
_DISK_RULES: Final = "journal/disk_rules.py"
_STREAM: Final = "pipeline/stream.py"
_RECEIVER: Final = "pipeline/receiver.py"
_PIPELINE_GAP_FILL: Final = "pipeline/gap_fill.py"
_MISSED_TRADES: Final = "pipeline/missed_trades.py"
_ARBITRATION: Final = "protocol/arbitration.py"
_BOOK_ARBITRATION: Final = "protocol/book_arbitration.py"
_SESSION: Final = "protocol/websocket_session.py"
_LINE: Final = "bybit/line.py"
_CONNECTION: Final = "bybit/connection.py"
_TRANSLATOR: Final = "translate/translator.py"
_GAP_FILL_RECORDS: Final = "translate/gap_fill_records.py"
_BOOKS: Final = "translate/books.py"
_ACCOUNT: Final = "translate/account.py"
_SUPERVISOR: Final = "defs/stream/supervisor.py"

_OF_KAFKA: Final = (
    Break(
        "arrived_ignored",
        "Records that have arrived are sent again after a restart.",
        _PUBLISHER,
        "if record.position <= arrived_through and self._has_arrived(record, partition):",
        "if record.position < 0:",
    ),
    Break(
        "ends_not_settled",
        "The ends of partitions are read before the bytes of an ended producer have arrived.",
        _RESUME,
        "                if point.settle:\n",
        "                if point.settle and ends is None:\n",
    ),
    Break(
        "own_bytes_not_settled",
        "After an error the ends of partitions are read before the bytes of the last producer have arrived.",
        _PUBLISHING,
        "                self._settle = True\n",
        "                self._settle = False\n",
    ),
    Break(
        "kill_needs_no_settling",
        "The first start after a kill does not wait for the bytes of the killed process.",
        _PUBLISHING,
        "        self._settle = not journal.ended_cleanly\n",
        "        self._settle = False\n",
    ),
    Break(
        "every_end_is_clean",
        "A journal is marked as closed cleanly while bytes are under way.",
        _STREAM,
        "await self._journal.close(clean=is_clean)",
        "await self._journal.close(clean=True)",
    ),
    Break(
        "offsets_of_the_end",
        "The offsets saved with a position are those behind records of later frames.",
        _PUBLISHER,
        "if self._known is not None and position < self._arrived.last_position:",
        "if self._known is not None and position < 0:",
    ),
    Break(
        "lost_state_reads_nothing",
        "When it is not known which records were published, nothing is read back.",
        _RESUME,
        "    if known is None:\n",
        "    if not known:\n",
    ),
    Break(
        "first_state_not_saved",
        "Before the first record is sent, the offsets to read back from are not saved.",
        _PUBLISHING,
        "        if known is None:  # before",
        "        if known is None and position < 0:  # before",
    ),
    Break(
        "numbered_anew",
        "A batch that is sent again gets a new sequence number.",
        _BATCH_SENDER,
        "            causes: set[str] = set()\n",
        "            causes: set[str] = set()\n"
        "            if not is_first:\n"
        "                for each in waiting:\n"
        "                    self._count(each, batches[each])\n"
        "                waiting = {each: self._content(each, batches[each]) for each in waiting}\n",
    ),
    Break(
        "errors_acknowledge",
        "A batch that Kafka refuses counts as acknowledged.",
        _PUBLISHER,
        "                spent = answer\n            elif _may_pass",
        "                queue.popleft()\n            elif _may_pass",
    ),
    Break(
        "silence_acknowledges",
        "A group that Kafka has not answered in time counts as acknowledged.",
        _PUBLISHER,
        '        except TimeoutError as error:\n            raise KafkaUnavailable(f"records not',
        "        except TimeoutError as error:\n            if records:\n                return\n"
        '            raise KafkaUnavailable(f"records not',
    ),
    Break(
        "goes_on_unanswered",
        "The position moves on, and the next group is sent, before Kafka has answered.",
        _PUBLISHING,
        "            await self._sink.publish(translated.records, self._keep_refused)\n",
        "            sending = asyncio.create_task(self._sink.publish(translated.records, self._keep_refused))\n"
        "            sending.add_done_callback(lambda task: task.cancelled() or task.exception())\n"
        "            await self._clock.sleep(0.02)\n",
    ),
    Break(
        "refused_topic_goes_on",
        "The later batches of a partition are sent although one before them waits.",
        _PUBLISHER,
        "                queue.clear()\n",
        "                queue.popleft()\n",
    ),
    Break(
        "blocked_is_saved",
        "The state is saved while a topic lacks records of earlier frames.",
        _PUBLISHING,
        "            if ahead is None and not self._sink.is_behind:\n",
        "            if ahead is None:\n",
    ),
    Break(
        "never_caught_up",
        "What a blocked topic lacks is not published when it accepts records again.",
        _PUBLISHING,
        "            if self._sink.must_catch_up:\n",
        "            if self._sink.must_catch_up and position < 0:\n",
    ),
    Break(
        "old_records_set_aside",
        "A record that is refused for its time is kept in the journal's table instead of being sent again.",
        _REMEDIES,
        "        if answer.kind is RefusalKind.TIME:\n"
        "            return [self._rebuilder.retimed(refused), *later], []\n",
        "",
    ),
    Break(
        "compacted_is_missing",
        "What compaction removed is published again after a restart.",
        _RESUME,
        "return name[:2] <= self.through.get(partition, _NONE) or name in self.names[partition.topic]",
        "return name in self.names[partition.topic]",
    ),
    Break(
        "refused_dropped",
        "A record that Kafka refuses for good is left out and kept nowhere.",
        _PUBLISHING,
        "for refusal in refused:",
        "for refusal in refused[:0]:",
    ),
    Break(
        "batch_refused_for_one_record",
        "All records of a batch are set aside with the one that is refused for good.",
        _REMEDIES,
        "        if refused.count > 1:\n",
        "        if refused.count > 1:\n"
        "            return later, [Refusal(each, str(answer)) for each in refused.records]\n"
        "        if refused.count < 1:\n",
    ),
)

_OF_THE_STATE: Final = (
    Break(
        "state_ahead_of_kafka",
        "The state is saved while a group of frames that it includes is not acknowledged.",
        _PUBLISHING,
        "        if self._translating is not None and not self._is_under_way:\n            self._checkpoints.offer",
        "        if self._translating is not None:\n            self._checkpoints.offer",
    ),
    Break(
        "state_ahead_at_the_end",
        "The last state is saved while a group of frames that it includes is not acknowledged.",
        _PUBLISHING,
        "        if self._translating is not None and not self._is_under_way:  # else",
        "        if self._translating is not None:  # else",
    ),
    Break(
        "state_ahead_by_a_group",
        "The state is saved when the next group is translated already.",
        _PUBLISHING,
        "            if ahead is None and not self._sink.is_behind:\n                self._is_under_way = False\n"
        "                self._checkpoints.offer(translator, position)\n",
        "            self._checkpoints.offer(translator, position)\n"
        "            if ahead is None and not self._sink.is_behind:\n                self._is_under_way = False\n",
    ),
    Break(
        "ahead_of_a_due_state",
        "The next group is translated although a state is due, and the state is saved anyway.",
        _PUBLISHING,
        "            if ahead is None and not self._sink.is_behind:\n                self._is_under_way = False\n",
        "            if (ahead is None or self._checkpoints.is_due) and not self._sink.is_behind:\n"
        "                self._is_under_way = False\n",
    ),
    Break(
        "translator_kept",
        "After an error the old translator continues, which includes frames that Kafka does not have.",
        _PUBLISHING,
        "                translator, position = await self._open()\n",
        "                translator, position = await self._open()\n"
        "                translator = self._translating or translator\n",
    ),
    Break(
        "lost_state_begins_empty",
        "A lost state is replaced by an empty one instead of being rebuilt.",
        _CHECKPOINTS,
        "translator = await asyncio.to_thread(self._rebuilt, position)",
        "translator = self._translator(None)",
    ),
    Break(
        "lost_frames_not_noted",
        "Frames that the journal has lost open no gap.",
        _PUBLISHING,
        "        if position != after + 1:\n",
        "        if position < after:\n",
    ),
)

_OF_THE_JOURNAL: Final = (
    Break(
        "failed_append_dropped",
        "Frames that the disk refused are dropped instead of written later.",
        _STREAM,
        "isinstance(error, JournalFull))\n                continue\n",
        "isinstance(error, JournalFull))\n                return\n",
    ),
    Break(
        "published_before_durable",
        "Frames are published from memory before the journal has them.",
        _STREAM,
        "                await self._append(arrivals)\n",
        "                early = Arrivals()\n"
        "                early.extend(arrivals)\n"
        "                self._frame_buffer.put(self._journal.last_position + 1, early)\n"
        "                self._publishing.wake()\n"
        "                await self._append(arrivals)\n",
    ),
    Break(
        "pause_without_end",
        "Lines that were closed for a full journal are not opened again.",
        _STREAM,
        "            source.resume()\n",
        "            source.name\n",
    ),
    Break(
        "no_pause",
        "Lines stay open while the journal refuses frames.",
        _STREAM,
        "            source.pause()\n",
        "            source.name\n",
    ),
    Break(
        "history_kept_on_full_disk",
        "Delivered frames stay although the disk has no room for new ones.",
        _DISK_RULES,
        "return 0 if is_pressed else min(keep_bytes, self.disk_bytes // 4)",
        "return min(keep_bytes, self.disk_bytes // 4)",
    ),
    Break(
        "drain_does_not_wait",
        "A stop does not wait for frames that were read.",
        _STREAM,
        "while self._receiver.waiting or self.stats.lag_frames or self._is_appending:",
        "while self._receiver.waiting < 0:",
    ),
)

_OF_LINES: Final = (
    Break(
        "both_copies_kept",
        "A copy that another line has already brought is taken again.",
        _ARBITRATION,
        "        if self._known.has_all_of(offer.identities):\n            return True\n        # Identities up",
        "        return False\n        # Identities up",
    ),
    Break(
        "joins_at_once",
        "A line joins before it and a live one have received the same frame.",
        _ARBITRATION,
        "        if self._joins(line, waiting, offer, now_s):\n",
        "        if self._joins(line, waiting, offer, now_s) or waiting is not None:\n",
    ),
    Break(
        "quiet_line_vouches",
        "A line joins a quiet channel although the live one has received nothing since.",
        _ARBITRATION,
        "return any(self._is_settled(line, self._received_s(live)) for live in self.joined)",
        "return True",
    ),
    Break(
        "held_frames_dropped",
        "The frames that a waiting line holds are lost when it takes over.",
        _ARBITRATION,
        "return LineEnd(accepted + self._join(successor, held, now_s), has_gap)",
        "return LineEnd(accepted + self._join(successor, (), now_s), has_gap)",
    ),
    Break(
        "every_heir_overlaps",
        "A line that takes over counts as having brought everything.",
        _ARBITRATION,
        "has_gap = not is_overlapping and (waiting.overflowed or not self._is_settled(successor, received_s))",
        "has_gap = False",
    ),
    Break(
        "future_frame_hides_the_next",
        "Trades after one with a time in the future are old, when their lines were cut just after it.",
        _ARBITRATION,
        "        is_older = self._is_older_by_number(offer)\n        if",
        "        is_older = self._is_older_by_number(offer)\n"
        "        if self._last is not None and isinstance(offer.message, TradesMessage):\n"
        "            return offer.message.ts < self._last.ts\n        if",
    ),
    Break(
        "no_gap_on_a_lost_line",
        "The loss of the last line of a channel is not noted.",
        _RECEIVER,
        'self.note("down", down, reason)',
        "log.debug(reason)",
    ),
    Break(
        "no_gap_on_a_start",
        "The time without a process is not noted.",
        "service.py",
        'self.receiver.note("started", self.plan.feeds, self._why_frames_are_missing(), fills_gaps=True)',
        'log.debug("started")',
    ),
    Break(
        "pongs_are_data",
        "A line that brings only pongs counts as one with data.",
        _RECEIVER,
        "        if line not in self._steady or not (self.is_behind(line) or self._awaits_snapshots(line)):\n",
        "        if line in self._alive_s:\n",
    ),
    Break(
        "pongs_keep_a_line",
        "A line that brings only pongs is not replaced.",
        _CONNECTION,
        "return controls < len(raws)",
        "return bool(raws)",
    ),
    Break(
        "silence_cuts_lines",
        "A line on which a market is quiet is closed although its pongs come.",
        _SESSION,
        "return math.inf if self._answered_s >= since_s else since_s + self._timing.stale_after_s",
        "return since_s + self._timing.stale_after_s",
    ),
    Break(
        "no_pong_is_no_matter",
        "A line that answers no pings is not replaced.",
        _SESSION,
        '        if self._unanswered_s + self._timing.pong_timeout_s <= now_s:\n            return "no_pong"\n',
        "        if self._unanswered_s + self._timing.pong_timeout_s <= now_s:\n"
        "            self._unanswered_s = math.inf\n",
    ),
    Break(
        "unanswered_not_repeated",
        "A subscription without an answer is not sent again.",
        _SESSION,
        "                effects.append(self._subscribe(subscription, now_s))\n        return effects",
        "                subscription.due_s = math.inf\n        return effects",
    ),
    Break(
        "rotated_too_early",
        "A line is closed before its successor has taken over.",
        _LINE,
        "return self._waited_s(connection) >= self._limits.join_timeout_s or self._receiver.has_joined(connection.key)",
        "return self._waited_s(connection) >= 0.0",
    ),
    Break(
        "gaps_by_wall_clock",
        "The end of a gap is taken from a clock that may be behind.",
        _RECEIVER,
        "return max(wall_ns // 1_000_000, self._now_ms(), by_frames_ms)",
        "return min(wall_ns // 1_000_000, by_frames_ms)",
    ),
    Break(
        "undecodable_dropped",
        "A frame that cannot be decoded is not journalled.",
        _RECEIVER,
        "                add_frame(frame)\n                add_message(None)\n                continue\n",
        "                continue\n",
    ),
)

_OF_BOOKS: Final = (
    Break(
        "skip_unnoticed",
        "A book stays marked continuous after a skipped update.",
        _BOOKS,
        "    if book.continuous:\n        open_gap(channel, SKIPPED)\n    book.continuous = False\n",
        "    open_gap(channel, SKIPPED)\n",
    ),
    Break(
        "skip_is_no_gap",
        "A skipped update opens no gap.",
        _BOOKS,
        "    if book.continuous:\n        open_gap(channel, SKIPPED)\n    book.continuous = False\n",
        "    book.continuous = False\n",
    ),
    Break(
        "skip_not_recovered",
        "After a skipped update no snapshot is requested.",
        _BOOK_ARBITRATION,
        "            return self._replace(self._snapshots_ahead.pop(lowest), now_s)\n        self.is_broken = True\n",
        "            return self._replace(self._snapshots_ahead.pop(lowest), now_s)\n        self.is_broken = False\n",
    ),
    Break(
        "snapshot_not_requested",
        "A broken book is not subscribed to again.",
        _RECEIVER,
        '                resubscribe(feed.partition(":")[2])\n',
        "                pass\n",
    ),
    Break(
        "skip_not_awaited",
        "An update that another line may still bring is given up at once.",
        _BOOK_ARBITRATION,
        "return all(self._brought_u.get(line, 0) >= update_id for line in self.joined)",
        "return True",
    ),
    Break(
        "deleted_levels_stay",
        "A level of size 0 stays in the book.",
        _BOOKS,
        'if size[0] == "0" and not size.strip("0."):',
        'if size == "":',
    ),
)

_OF_GAPS: Final = (
    Break(
        "gap_begins_late",
        "A gap begins with the last frame before its end instead of the last before it opened.",
        _TRANSLATOR,
        "        if channel.gap_reason is None:  # while a gap is open, its beginning stays\n",
        "        if channel is not None:\n",
    ),
    Break(
        "open_gap_fill_not_recorded",
        "Gaps whose fill was ended by a kill are recorded nowhere.",
        _TRANSLATOR,
        "                open_gap(channel, note.reason)\n",
        "                open_gap(channel, note.reason)\n                channel.unfilled = []\n",
    ),
    Break(
        "filled_trade_not_remembered",
        "A trade recovered by REST is published again when a line brings it.",
        _GAP_FILL_RECORDS,
        "            seen_ids.add(row.execId)\n",
        "",
    ),
    Break(
        "filled_trade_published_twice",
        "A trade that a line has brought is published again when REST brings it.",
        _GAP_FILL_RECORDS,
        "        if row.execId not in seen_ids.known and _is_missing(",
        "        if _is_missing(",
    ),
    Break(
        "trades_filled_outside_gaps",
        "Trades of REST are published that lie in no gap.",
        _GAP_FILL_RECORDS,
        "any(gap.from_ms <= trade.end_ms and trade.begin_ms <= gap.to_ms for gap in channel.unfilled)",
        "bool(channel.unfilled)",
    ),
    Break(
        "trades_not_remembered",
        "A trade that REST or another line has brought is published again.",
        "translate/trades.py",
        "if row.i in seen_ids.known:",
        "if row.i in ():",
    ),
    Break(
        "gap_fill_begins_now",
        "Fills and orders of a gap are requested from now on instead of from its beginning.",
        _PIPELINE_GAP_FILL,
        "return self._rest.now_ms() if seen_ms is None else seen_ms",
        "return self._rest.now_ms()",
    ),
    Break(
        "first_answer_closes_a_gap",
        "A gap of trades is recorded with the first answer, which may lag behind the line.",
        _GAP_FILL_RECORDS,
        "    if answer.closes_gaps:\n",
        "    if answer:\n",
    ),
    Break(
        "listed_trades_left_out",
        "Trades that were listed before a gap are left out of the answers about it.",
        _MISSED_TRADES,
        "        self._listed.pop(feed, None)  # rows that lay in no gap may lie in the next one\n",
        "",
    ),
    Break(
        "skipped_trades_unknown",
        "A gap is recorded as filled although more trades happened between two answers than they list.",
        _GAP_FILL_RECORDS,
        "        if not is_adjacent:\n",
        "        if not is_adjacent and not dated:\n",
    ),
    Break(
        "rest_ticker_beside_a_line",
        "A ticker of REST is published although a line carries the feed.",
        "translate/tickers.py",
        "    if channel is not None and channel.gap_reason is None:\n",
        "    if channel is not None and channel.last_ms < 0:\n",
    ),
    Break(
        "dead_letters_dropped",
        "A frame that cannot be decoded is left out without a dead letter.",
        _TRANSLATOR,
        "            self._add_dead_letter(builder, feed, str(error))\n",
        "",
    ),
)

_OF_THE_ACCOUNT: Final = (
    Break(
        "old_position_wins",
        "A position of REST replaces one that a later frame has brought.",
        _ACCOUNT,
        "        if as_of < known and row.seq <= known[1]:\n            return False\n",
        "        if as_of != known:\n            state.positions_as_of[key] = as_of\n            return True\n",
    ),
    Break(
        "old_wallet_wins",
        "A balance of REST replaces one that a later frame has brought.",
        _ACCOUNT,
        "            if not origin.is_rest or coin.at_ms > known_ms:\n",
        "            if not origin.is_rest or coin.at_ms:\n",
    ),
    Break(
        "old_loan_wins",
        "An answer about the loan replaces a later one.",
        "translate/ltv_and_loans.py",
        'if answer.time_ms < account.state.seen_ms.get("collateral", 0):',
        "if answer.time_ms < 0:",
    ),
    Break(
        "fills_not_remembered",
        "A fill that REST brings is published although a line has brought it.",
        _ACCOUNT,
        "if self._is_new(self._executions, row.execId):",
        "if healed or self._is_new(self._executions, row.execId):",
    ),
)

_OF_THE_SENSOR: Final = (
    Break(
        "second_run",
        "The sensor starts another run while one is alive.",
        _SUPERVISOR,
        "    if healthy:\n",
        "    if healthy and now_s < 0:\n",
    ),
    Break(
        "silent_run_kept",
        "The sensor does not end a run without heartbeats.",
        _SUPERVISOR,
        "    return now_s - max(heartbeat.at_s, last_event_s) > silent_s\n",
        "    return False\n",
    ),
    Break(
        "no_run_after_a_failure",
        "The sensor waits forever after a run that failed.",
        _SUPERVISOR,
        "        if left_s > 0:\n",
        "        if left_s > -1e9:\n",
    ),
)

BREAKS: Final = (
    *_OF_KAFKA,
    *_OF_THE_STATE,
    *_OF_THE_JOURNAL,
    *_OF_LINES,
    *_OF_BOOKS,
    *_OF_GAPS,
    *_OF_THE_ACCOUNT,
    *_OF_THE_SENSOR,
)
