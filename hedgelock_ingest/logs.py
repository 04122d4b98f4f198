"""
Logs on stderr: an event name and its fields, as JSON or text, without secrets.

Modules write `log = structlog.get_logger(__name__)` and `log.info("line_connected", line="linear-a")`. Fields of a
complete task are bound once: `with structlog.contextvars.bound_contextvars(shard="main"): ...`. Log lines of libraries
pass the same pipeline, from warnings upward; they are rate-limited, and the suppressed ones are counted.

A process that calls neither function would print our lines unredacted to stdout, which is structlog's default. So each
command calls `configure`; `defs.assembly` calls `configure_ours` in every process that loads the definitions, such as
Dagster's code server, in which the sensor runs; a run's op then calls `configure`.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from hedgelock_ingest.redaction import Redaction
from hedgelock_ingest.settings import Settings, secrets

__all__ = ["configure", "configure_ours"]

OURS = "hedgelock_ingest"
# At DEBUG, pybit and websocket-client log keys and signatures, and websockets logs complete frames: never allowed.
LIBRARIES = ("aiokafka", "websockets", "websocket", "pybit", "uvicorn", "asyncio", "urllib3", "py.warnings")
# A consumer of a topic that was just created logs this at error, and retries.
_RETRIED_BY_LIBRARY = ("aiokafka.consumer.fetcher", "Failed fetch offsets from %s: %s", "NotLeaderForPartitionError")
_FIRST_FIELDS = ("timestamp", "level", "event", "logger")


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """
    Send all logs of this process through one redacted pipeline; may be called again.

    Args:
        settings: Level, format, and the secrets to redact.
        stream: Used instead of stderr.
    """
    handler = configure_ours(settings, stream)
    for name in LIBRARIES:
        _attach(logging.getLogger(name), handler, max(_level(settings), logging.WARNING))
    root = logging.getLogger()
    # A host such as Dagster installs its own handlers there; without any, Python would print unredacted text.
    if all(isinstance(each, _RateLimitedHandler) for each in root.handlers):
        root.handlers = [handler]
    logging.captureWarnings(True)
    threading.excepthook = _log_failed_thread


def configure_ours(settings: Settings, stream: TextIO | None = None) -> logging.Handler:
    """
    Send only our own logs through the redacted pipeline, and return its handler; may be called again.

    For a process of a host, which logs by its own rules: in Dagster's code server a handler of the root logger would
    write each of Dagster's lines a second time.

    Args:
        settings: Level, format, and the secrets to redact.
        stream: Used instead of stderr.
    """
    redaction = Redaction(secrets(settings))
    handler = _RateLimitedHandler(stream or sys.stderr)
    handler.addFilter(_is_relevant)
    handler.setFormatter(_formatter(redaction, settings.monitoring_log_format, handler.stream))
    _attach(logging.getLogger(OURS), handler, _level(settings))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *_stamps(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_level(settings)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    return handler


def _level(settings: Settings) -> int:
    return logging.getLevelNamesMapping()[settings.monitoring_log_level]


def _is_relevant(record: logging.LogRecord) -> bool:
    """Reject an error that the library retries: a partition without a leader yet."""
    logger, text, cause = _RETRIED_BY_LIBRARY
    return not (record.name == logger and record.msg == text and cause in record.getMessage())


def _log_failed_thread(failure: threading.ExceptHookArgs) -> None:
    # Python would print the unredacted traceback, which may contain a library's request with our key.
    if failure.exc_value is not None:
        name = failure.thread.name if failure.thread else ""
        structlog.get_logger(OURS).error("thread_failed", thread=name, exc_info=failure.exc_value)


def _attach(logger: logging.Logger, handler: logging.Handler, level: int) -> None:
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(level)


def _stamps() -> Sequence[Processor]:
    return (
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    )


def _formatter(redaction: Redaction, form: str, stream: TextIO) -> logging.Formatter:
    renderer: Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )

    def redact_rendered(_logger: WrappedLogger, _method: str, rendered: Any) -> Any:
        return redaction.known(rendered)

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.contextvars.merge_contextvars, *_stamps(), _count_of_suppressed],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _redactor(redaction),
            renderer,
            redact_rendered,
        ],
    )


def _redactor(redaction: Redaction) -> Processor:
    def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        first = {name: event[name] for name in _FIRST_FIELDS if name in event}
        return {
            redaction.text(str(name)): redaction.value(value, str(name)) for name, value in {**first, **event}.items()
        }

    return redact


def _count_of_suppressed(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    count = getattr(event.get("_record"), "suppressed", 0)
    return {**event, "suppressed": count} if count else event


@dataclass(slots=True)
class _LineCount:
    """Lines of one logger since `began`."""

    began: float
    written: int = 0
    suppressed: int = 0


class _RateLimitedHandler(logging.StreamHandler[TextIO]):
    """
    Writes at most `BURST` lines of one library logger and level in `WINDOW_S` seconds, and reports how many it dropped.

    Our own lines always pass. The count is logged with the next line of the same logger, or before the next line of
    any logger once the window is over, or at the end of the process.
    """

    BURST = 10
    WINDOW_S = 10.0

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._count_by_source: dict[tuple[str, int], _LineCount] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self._report_ended_windows(self._clock())
        if self._passes(record):
            super().emit(record)

    def close(self) -> None:
        self._report_ended_windows(float("inf"))
        super().close()

    def _passes(self, record: logging.LogRecord) -> bool:
        if record.name.split(".")[0] == OURS:
            return True
        source = (record.name, record.levelno)
        window = self._count_by_source.setdefault(source, _LineCount(self._clock()))
        passes = window.written < self.BURST
        window.written += passes
        window.suppressed += not passes
        return passes

    def _report_ended_windows(self, now: float) -> None:
        for (name, level), window in list(self._count_by_source.items()):
            if now - window.began >= self.WINDOW_S:
                del self._count_by_source[name, level]
                if window.suppressed:
                    record = logging.LogRecord(name, level, "", 0, "log_lines_suppressed", None, None)
                    record.suppressed = window.suppressed
                    super().emit(record)
