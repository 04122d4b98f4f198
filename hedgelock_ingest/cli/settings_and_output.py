"""Settings, log configuration and output of the commands."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hedgelock_ingest.settings import Settings


def load_for_command(*, for_people: bool = False) -> "Settings":
    """Load the settings and configure logs; `for_people` silences them, since the command prints its own text."""
    from hedgelock_ingest.logs import configure
    from hedgelock_ingest.settings import load_settings

    settings = load_settings()
    if for_people and settings.monitoring_log_level != "DEBUG":
        configure(settings.model_copy(update={"monitoring_log_level": "CRITICAL", "monitoring_log_format": "text"}))
        return settings
    configure(settings)
    import structlog

    for warning in settings.warnings:
        structlog.get_logger("hedgelock_ingest.settings").warning("setting_questionable", reason=warning)
    return settings


@contextmanager
def broken_pipe_ignored() -> Iterator[None]:
    """End cleanly when the reader of the output, such as `head`, closes the pipe."""
    try:
        yield
    except BrokenPipeError:
        # Python must not try to flush to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_errors(*lines: str) -> None:
    """Print lines to stderr."""
    for line in lines:
        print(line, file=sys.stderr)
