"""Whether Dagster stores where its operator thinks: a folder relative to nowhere would make a second storage."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml


def misplaced(environment: Mapping[str, str], here: Path) -> str | None:
    """
    Say what is wrong where Dagster stores relative to a folder that is not `DAGSTER_HOME`; None if nothing is.

    Args:
        environment: Of this process, which its code server's parent started.
        here: The folder that this process works in; the parent's, too.
    """
    home = Path(environment.get("DAGSTER_HOME") or here)
    if home.resolve() == here.resolve():
        return None
    try:
        config = yaml.safe_load((home / "dagster.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return None  # none, or one that Dagster itself refuses
    relative = next(_relative_folders(config), None)
    if relative is None:
        return None
    return (
        f'dagster.yaml in DAGSTER_HOME={home} stores in "{relative}", relative to where Dagster is started, and that '
        f"is {here}: start it in {home}, or make the path absolute, or runs stand in two storages"
    )


def _relative_folders(config: object) -> Iterator[str]:
    if isinstance(config, dict):
        folder = config.get("base_dir")
        if isinstance(folder, str) and not Path(folder).is_absolute():
            yield folder
        for value in config.values():
            yield from _relative_folders(value)
