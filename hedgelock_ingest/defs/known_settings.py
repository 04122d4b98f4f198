"""Settings as read while Dagster loads: wrong ones must not keep the location from loading."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from hedgelock_ingest.defs.instance_home import misplaced
from hedgelock_ingest.errors import SettingsInvalid
from hedgelock_ingest.settings import Settings, load_settings


@dataclass(frozen=True, slots=True)
class Known:
    """Settings that the assets are built from, with problems and notes; the defaults if the settings are wrong."""

    settings: Settings
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the stream's shards."""
        return self.settings.stream_shards


def read() -> Known:
    """Read the settings; never raises."""
    misplacement = misplaced(os.environ, Path.cwd())
    problems = [misplacement] if misplacement else []
    try:
        settings = load_settings()
    except SettingsInvalid as error:
        return Known(Settings(), problems=[*problems, *error.problems])
    notes = [] if settings.has_key else ["no BYBIT_API_KEY: only public feeds run, account topics stay empty"]
    return Known(settings, problems, notes=[*notes, *settings.warnings])
