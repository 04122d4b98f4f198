"""Maven Central through jgo, which needs neither Maven nor Java."""

import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple, Self

from hedgelock_ingest.errors import SandboxError

CENTRAL = "Maven Central"
REPOSITORY = CENTRAL
"""The source of jars: Maven Central, whose address jgo knows, or another address."""

_PROGRESS_EVERY_S = 3.0


class Artifact(NamedTuple):
    """A Maven artifact, `group:artifact:version`."""

    group: str
    name: str
    version: str

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(*text.split(":"))

    def __str__(self) -> str:
        return ":".join(self)


def resolve(wanted: Sequence[str], staging: Path) -> list[Artifact]:
    """
    Return the artifacts and their run-time dependencies, in class path order.

    Raises:
        SandboxError: Maven Central did not answer, or its answer is not usable.
    """
    context = _context(staging)
    dependencies = [_dependency(context, Artifact.parse(text)) for text in wanted]
    try:
        asked_for, needed = context.resolver.resolve(dependencies)
    except Exception as error:
        raise SandboxError(f"cannot resolve {wanted[0]} at {REPOSITORY}: {_reason(error)}") from error
    found = [*asked_for, *(each for each in needed if each.scope in ("compile", "runtime"))]
    return [Artifact(each.groupId, each.artifactId, each.version) for each in found]


def fetch(artifacts: Sequence[Artifact], staging: Path, report: Callable[[str], None]) -> dict[Artifact, Path]:
    """
    Fetch jars into the staging folder, several at once, and verify each one's checksums.

    Raises:
        SandboxError: A jar could not be fetched, or is damaged.
    """
    context = _context(staging)
    with ThreadPoolExecutor(max_workers=8) as pool:
        fetching = {pool.submit(_fetch_one, context, artifact): artifact for artifact in artifacts}
        try:
            _report(as_completed(fetching), len(artifacts), report)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return {artifact: arrived.result() for arrived, artifact in fetching.items()}


def _report(arriving: Iterator[Future[Path]], expected: int, report: Callable[[str], None]) -> None:
    started = reported = time.monotonic()
    jars_bytes = 0
    for number, arrived in enumerate(arriving, start=1):
        jars_bytes += arrived.result().stat().st_size
        now = time.monotonic()
        if now - reported > _PROGRESS_EVERY_S or number == expected:
            reported = now
            report(f"  {number} of {expected} jars, {jars_bytes / 1e6:.1f} MB, {now - started:.0f} s")


def _fetch_one(context: Any, artifact: Artifact) -> Path:
    try:
        path: Path = _dependency(context, artifact).artifact.resolve()
        with zipfile.ZipFile(path) as jar:
            damaged = jar.testzip()
    except Exception as error:
        raise SandboxError(f"cannot fetch {artifact} from {REPOSITORY}: {_reason(error)}") from error
    if damaged:
        raise SandboxError(f"{artifact} from {REPOSITORY} arrived damaged at {damaged}")
    return path


def _context(staging: Path) -> Any:
    try:
        from jgo.constants import MAVEN_CENTRAL_URL
        from jgo.maven import MavenContext
    except ImportError as error:
        raise SandboxError(
            f"the embedded Kafka needs {error.name}; run: pip install 'hedgelock-ingest[sandbox]'"
        ) from error
    address = MAVEN_CENTRAL_URL if REPOSITORY == CENTRAL else REPOSITORY
    return MavenContext(repo_cache=staging, remote_repos={"central": address}, timeout=20)


def _dependency(context: Any, artifact: Artifact) -> Any:
    from jgo.parse import Coordinate

    # jgo would otherwise take the scope from the artifact's own dependency management.
    return context.create_dependency(Coordinate(*artifact, scope="compile"))


def _reason(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return f"{type(error).__name__}: {error}"
