"""Check that Dagster's storage folder does not depend on the working directory, which would create a second storage."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml


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
