"""
The broker's jars: fetched from Maven Central once, kept in the user's cache, checked at each start.

    $HEDGELOCK_CACHE, or hedgelock in the user's cache folder
    └── kafka-4.3.0/
        ├── class-path.json    each jar with its artifact and SHA-256; written last
        ├── jars/
        └── lock               held while jars are fetched
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.kafka.maven import REPOSITORY, Artifact, fetch, resolve

VERSION = "4.3.0"
# Without a binding of SLF4J the broker logs nothing, not even when it fails.
WANTED = (f"org.apache.kafka:kafka_2.13:{VERSION}", "org.slf4j:slf4j-simple:1.7.36")


@dataclass(frozen=True)
class Jar:
    """A jar as it was fetched; `artifact` is `group:artifact:version`."""

    artifact: str
    name: str
    sha256: str

    def is_intact(self, folder: Path) -> bool:
        """Return whether the file exists with the bytes that were fetched; all 46 take 30 ms."""
        try:
            with (folder / "jars" / self.name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except OSError:
            return False


def class_path() -> list[Path]:
    """
    Return Kafka's jars, fetching those that are missing or damaged; progress goes to stderr.

    Raises:
        SandboxError: There is no network and no cache, or the cache cannot be written.
    """
    folder = cache_directory() / f"kafka-{VERSION}"
    jars = _intact_jars(folder)
    if jars is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _only_one_process(folder / "lock"):
                jars = _intact_jars(folder) or _fetch_missing(folder)
        except OSError as error:
            raise SandboxError(
                f"cannot keep Kafka's jars in {folder}: {error}; set HEDGELOCK_CACHE to a folder that can be written"
            ) from error
    return [folder / "jars" / jar.name for jar in jars]


def cache_directory() -> Path:
    """Return the folder for what is fetched once, which may not exist yet."""
    if chosen := os.environ.get("HEDGELOCK_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "hedgelock"


def _intact_jars(folder: Path) -> list[Jar] | None:
    jars = _read_manifest(folder)
    return jars if jars and all(jar.is_intact(folder) for jar in jars) else None


def _read_manifest(folder: Path) -> list[Jar]:
    """Return the jars that the cache should hold; none when that is unknown, so that all are resolved again."""
    try:
        manifest = json.loads((folder / "class-path.json").read_bytes())
        jars = [Jar(**jar) for jar in manifest["jars"]]
        return jars if manifest["wanted"] == list(WANTED) else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _write_manifest(folder: Path, jars: list[Jar]) -> None:
    manifest = {"wanted": WANTED, "jars": [asdict(jar) for jar in jars]}
    unfinished = folder / "class-path.json.new"
    unfinished.write_text(json.dumps(manifest, indent=1))
    unfinished.replace(folder / "class-path.json")


def _fetch_missing(folder: Path) -> list[Jar]:
    for leftover in folder.glob("fetching-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    known = _read_manifest(folder)
    missing = [Artifact.parse(jar.artifact) for jar in known if not jar.is_intact(folder)]
    try:
        with tempfile.TemporaryDirectory(prefix="fetching-", dir=folder) as staging:
            if known:
                _report(f"{len(missing)} of Kafka's jars are missing or damaged in {folder}, fetching them again")
            else:
                _report(f"fetching Apache Kafka {VERSION} from {REPOSITORY}: 46 jars, 44 MB, half a minute, once")
                missing = resolve(WANTED, Path(staging))
            fetched = _move_into(folder, fetch(missing, Path(staging), _report))
    except SandboxError as error:
        raise SandboxError(
            f"{error}; connect this machine to the network once, "
            f"or set HEDGELOCK_CACHE to a folder filled elsewhere (it is {folder.parent})"
        ) from error
    jars = list({jar.name: jar for jar in [*known, *fetched]}.values())
    _write_manifest(folder, jars)
    return jars


def _move_into(folder: Path, path_by_artifact: dict[Artifact, Path]) -> list[Jar]:
    (folder / "jars").mkdir(exist_ok=True)
    jars = []
    for artifact, path in path_by_artifact.items():
        with path.open("rb") as file:
            jars.append(Jar(str(artifact), path.name, hashlib.file_digest(file, "sha256").hexdigest()))
        path.replace(folder / "jars" / path.name)
    return jars


@contextmanager
def _only_one_process(lock: Path) -> Iterator[None]:
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _report("another process is fetching Kafka's jars, waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _report(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)
