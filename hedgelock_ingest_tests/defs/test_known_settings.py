"""Dagster started in the wrong folder reports it instead of silently using a second storage."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hedgelock_ingest.defs.known_settings import misplaced
from hedgelock_ingest_tests.defs.dagster_process import ROOT

RELATIVE = "storage:\n  sqlite: {base_dir: .hedgelock/dagster}\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Create a home whose storage is relative to the working directory."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "dagster.yaml").write_text(RELATIVE)
    return folder


def test_storage_relative_to_another_folder_is_named(home: Path, tmp_path: Path) -> None:
    """Otherwise webserver and daemon would not see each other's runs, without an error."""
    problem = misplaced({"DAGSTER_HOME": str(home)}, tmp_path)
    assert problem is not None
    assert f"start it in {home}" in problem
    assert ".hedgelock/dagster" in problem


def test_correct_folder_is_accepted(home: Path, tmp_path: Path) -> None:
    """At the root of the clone, without a home, or with an absolute path."""
    assert misplaced({"DAGSTER_HOME": str(home)}, home) is None
    assert misplaced({}, home) is None
    for text in ("storage:\n  sqlite: {base_dir: /var/lib/dagster}\n", "", "storage: {sqlite: {base_dir: {env: X}}}\n"):
        (home / "dagster.yaml").write_text(text)
        assert misplaced({"DAGSTER_HOME": str(home)}, tmp_path) is None
    assert misplaced({"DAGSTER_HOME": str(tmp_path / "none")}, home) is None


def test_local_instance_requires_its_folder_and_the_production_one_does_not(tmp_path: Path) -> None:
    """Production sets its home once and starts from any folder."""
    assert misplaced({"DAGSTER_HOME": str(ROOT)}, tmp_path) is not None
    assert misplaced({"DAGSTER_HOME": str(ROOT / "config" / "postgres")}, tmp_path) is None


def test_problem_is_printed_when_dagster_loads(home: Path, tmp_path: Path) -> None:
    """An operator sees the problem in the terminal, and in the sensor's ticks."""
    command = [
        str(Path(sys.executable).with_name("dagster")),
        "definitions",
        "validate",
        "-m",
        "hedgelock_ingest.definitions",
    ]
    environment = {**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert f"start it in {home}" in found.stdout + found.stderr
