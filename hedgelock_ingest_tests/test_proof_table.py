"""The table of the proof: it counts tests that passed, and none that failed, crashed or were skipped."""

from pathlib import Path

from hedgelock_ingest_tests.sample_run import run_samples

CONFTEST = """
from hedgelock_ingest_tests.proof_table import ProofTable

def pytest_configure(config):
    config.addinivalue_line("markers", "proof: sample")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(ProofTable())
"""
TESTS = """
import os, pytest

pytestmark = pytest.mark.proof
FIGURES = {"events": 1_000, "in_kafka": 990, "healed": 10, "gaps": 1}

@pytest.fixture(autouse=True)
def figures(request):
    yield
    request.node.user_properties.append(("proved", FIGURES))

def test_proves(): pass
def test_proves_too(): pass
def test_proves_and_fails(): assert False
def test_is_skipped(): pytest.skip()
"""


def test_failed_crashed_and_skipped_tests_are_not_counted(tmp_path: Path) -> None:
    """The table is read before a release: each figure must come from a test that passed."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_sample.py").write_text(TESTS)
    (tmp_path / "test_crash.py").write_text("import os\n\ndef test_crashes(): os._exit(1)\n")
    done = run_samples(tmp_path, "pytest", "-n", "1")
    rows = {
        cells[0]: cells[1:4] + cells[5:]
        for line in done.stdout.splitlines()
        if line.startswith("│")
        for cells in [[cell.strip() for cell in line.strip("│").split("│")]]
    }
    assert rows == {
        "test_crash.py": ["", "1", "", "", "", "", ""],
        "test_sample.py": ["2", "1", "1", "2,000", "1,980", "20", "2"],
        "Everything else, as in the gate": ["", "", "", "", "", "", ""],
    }, done.stdout
