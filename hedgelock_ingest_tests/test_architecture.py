"""The architecture: the import contracts in pyproject.toml, and pure modules without I/O."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hedgelock_ingest"

PURE = ("models", "protocol", "translate")
OUTSIDE_WORLD = {"asyncio", "socket", "sqlite3", "subprocess", "threading", "time", "os", "pathlib"}


def imported_by(path: Path) -> set[str]:
    """List the top-level packages that a module imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def modules(*parts: str) -> list[Path]:
    """List the modules of parts of the package."""
    return [path for part in parts for path in sorted((PACKAGE / part).rglob("*.py"))]


@pytest.mark.parametrize("path", modules(*PURE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_pure_modules_have_no_io(path: Path) -> None:
    """They import no event loop, socket, disk or clock: all of that is passed as arguments."""
    assert imported_by(path) & OUTSIDE_WORLD == set()


def test_imports_point_down_and_each_library_has_one_home() -> None:
    """The contracts are in pyproject.toml."""
    lint_imports = Path(sys.executable).with_name("lint-imports")

    checked = subprocess.run(
        [lint_imports, "--no-cache"], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False, timeout=120
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
