"""The documents match the program: commands, links, pinned versions, topics."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from typer.core import TyperGroup

from hedgelock_ingest.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TEXTS = [*PAGES, *(ROOT / name for name in ("Makefile", "Dockerfile", ".ci/run", "tools/make-venv", "pyproject.toml"))]

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_CODE = re.compile(r"```[a-z]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
_MACHINE_PATH = re.compile(r"(?<![\w.~$}])/(?:home|root|work|Users|tmp)/[\w.-]+")
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+]+")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_has_a_target(page: Path) -> None:
    """A broken link loses the reader."""
    broken = [link for link in _LINK.findall(page.read_text()) if not _resolves(page, link)]
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_make_target_that_is_named_exists(page: Path) -> None:
    """A command that a reader copies from a page has to work."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {words[1] for words in _commands(page, "make") if len(words) > 1 and re.fullmatch("[a-z]+", words[1])}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_that_is_named_exists(page: Path) -> None:
    """Commands and their options are checked against the command line itself."""
    wrong = [words for words in _commands(page, "hedgelock-ingest") if not _is_command(words[1:])]
    assert not wrong


def test_readme_shows_the_two_commands_and_how_to_test() -> None:
    """The first page must show them; the search for commands must find them."""
    made = [words[1] for words in _commands(ROOT / "README.md", "make") if len(words) > 1]
    assert {"demo", "test", "lint"} <= set(made)
    ran = [words[1] for words in _commands(ROOT / "README.md", "hedgelock-ingest") if len(words) > 1]
    assert {"check", "run", "tail"} <= set(ran)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.name)
def test_no_path_of_one_machine_is_written_down(text: Path) -> None:
    """A path that exists on one machine only is useless elsewhere."""
    assert not _MACHINE_PATH.findall(text.read_text())


def test_constraints_pin_exact_versions_by_name() -> None:
    """A folder or an address in place of a version would install something else, or nothing, elsewhere."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not _PIN.fullmatch(line)] == []
    assert lines == sorted(lines, key=str.lower)


def test_constraints_cover_every_dependency() -> None:
    """An unpinned dependency may differ between installations; a pin outside its range installs nothing."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    versions = {canonicalize_name(name): version for name, version in pins.items()}
    unmet = [each for each in _requirements() if not _meets(versions, each)]
    assert not unmet, 'run "make constraints"'


def test_the_page_of_topics_matches_the_models() -> None:
    """Consumers rely on the page; it is generated from the models."""
    checked = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _resolves(page: Path, link: str) -> bool:
    if re.match("[a-z]+:", link):
        return True
    name, _, fragment = link.partition("#")
    target = page.parent / name if name else page
    if not target.exists():
        return False
    return not fragment or fragment in {_anchor(heading) for heading in _HEADING.findall(target.read_text())}


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _commands(page: Path, program: str) -> Iterator[list[str]]:
    """Yield the words of each command line in code, the program first."""
    for block, inline in _CODE.findall(page.read_text()):
        for line in (block or inline).splitlines():
            for command in re.split(r"&&|\||;", line.partition(" #")[0]):
                words = _words(command)
                if words and Path(words[0]).name == program:
                    yield words


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError:  # prose in a block, with an apostrophe
        return []
    while words and re.fullmatch("[A-Z_]+=.*", words[0]):
        words.pop(0)
    return words


def _is_command(words: list[str]) -> bool:
    """Return whether the command line has these subcommands and options; arguments are not checked."""
    command = typer.main.get_command(app)
    while words and isinstance(command, TyperGroup) and not words[0].startswith("-"):
        name, *words = words
        if name not in command.commands:
            return False
        command = command.commands[name]
    known = {"-h", "--help", *(name for each in command.params for name in (*each.opts, *each.secondary_opts))}
    return all(word.partition("=")[0] in known for word in words if word.startswith("-") and len(word) > 1)


def _requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return [Requirement(line) for line in lines]


def _meets(versions: dict[NormalizedName, str], requirement: Requirement) -> bool:
    version = versions.get(canonicalize_name(requirement.name))
    return version is not None and requirement.specifier.contains(version)
