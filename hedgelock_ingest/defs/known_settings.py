"""The settings as far as they can be known while Dagster loads: wrong ones must not keep the location from loading."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from hedgelock_ingest.defs.instance_home import misplaced
from hedgelock_ingest.errors import SettingsInvalid
from hedgelock_ingest.settings import Settings, load_settings


@dataclass(frozen=True, slots=True)
class Known:
    """Settings to draw the assets from, and what is wrong or missing; with anything wrong they are the defaults."""

    settings: Settings
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def shards(self) -> tuple[str, ...]:
        """The parts of the stream."""
        return self.settings.stream_shards


def read() -> Known:
    """Read the settings; never fails."""
    place = misplaced(os.environ, Path.cwd())
    problems = [place] if place else []
    try:
        settings = load_settings()
    except SettingsInvalid as error:
        return Known(Settings(), problems=[*problems, *error.problems])
    notes = [] if settings.has_key else ["no BYBIT_API_KEY: only public feeds run, account topics stay empty"]
    return Known(settings, problems, notes=[*notes, *settings.warnings])
