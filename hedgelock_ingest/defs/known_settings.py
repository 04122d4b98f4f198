"""Settings and storage folder as found while Dagster loads; wrong ones must not keep the location from loading."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from hedgelock_ingest.errors import SettingsInvalid
from hedgelock_ingest.settings import Settings, load_settings


@dataclass(frozen=True, slots=True)
class KnownSettings:
    """Settings that the assets are built from, with problems and notes; the defaults if the settings are wrong."""

    settings: Settings
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the stream's shards."""
        return self.settings.stream_shards


def read() -> KnownSettings:
    """Read the settings; never raises."""
    misplacement = misplaced(os.environ, Path.cwd())
    problems = [misplacement] if misplacement else []
    try:
        settings = load_settings()
    except SettingsInvalid as error:
        return KnownSettings(Settings(), problems=[*problems, *error.problems])
    notes = [] if settings.has_key else ["no BYBIT_API_KEY: only public feeds run, account topics stay empty"]
    return KnownSettings(settings, problems, notes=[*notes, *settings.warnings])


def misplaced(environment: Mapping[str, str], here: Path) -> str | None:
    """
    Describe the problem if Dagster stores relative to a folder other than `DAGSTER_HOME`; None if there is none.

    Args:
        environment: Of this process, inherited from the process that started the code server.
        here: The working directory of this process, and of its parent.
    """
    home = Path(environment.get("DAGSTER_HOME") or here)
    if home.resolve() == here.resolve():
        return None
    try:
        config = yaml.safe_load((home / "dagster.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return None  # missing, or a file that Dagster itself refuses
    relative = next(_relative_folders(config), None)
    if relative is None:
        return None
    return (
        f'dagster.yaml in DAGSTER_HOME={home} stores in "{relative}", relative to the working directory, '
        f"which is {here}: start it in {home}, or make the path absolute; otherwise runs are split over two storages"
    )


def _relative_folders(config: object) -> Iterator[str]:
    if isinstance(config, dict):
        folder = config.get("base_dir")
        if isinstance(folder, str) and not Path(folder).is_absolute():
            yield folder
        for value in config.values():
            yield from _relative_folders(value)
