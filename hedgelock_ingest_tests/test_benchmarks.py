"""The benchmarks run and lose nothing; their figures are not asserted."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_each_module_loads() -> None:
    """Benchmarks run only before a release must not break unnoticed."""
    modules = [f"benchmarks.{path.stem}" for path in (ROOT / "benchmarks").glob("*.py") if path.stem != "__main__"]
    assert len(modules) > 3
    code = f"import importlib; [importlib.import_module(name) for name in {modules}]"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


@pytest.mark.proof
@pytest.mark.timeout(240)
async def test_quick_benchmark_measures_everything_and_loses_nothing(tmp_path: Path) -> None:
    """Every round publishes each frame to Kafka once and ends; else no figure of the full run can be trusted."""
    output = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(output)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    try:
        code = await asyncio.wait_for(process.wait(), 200)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    results = json.loads(output.read_text())
    assert code == 0, results["failures"]
    assert {row["subject"].partition(" ")[0].rstrip(",") for row in results["table"] if row["subject"]} == {
        "latency",
        "sustained",
        "ceiling",
        "start",
    }
