"""
Fixtures of all tests, and the two kinds of run: the gate and the proof.

The gate (`make test`) skips tests marked `proof` and draws from a fixed seed, so that its result is reproducible. The
proof (`make proof`, option `--proof`) runs everything, draws from a new seed, prints it, and ends with a table of what
was proved. docs/testing.md explains both.
"""

import random
import signal
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import hypothesis
import pytest
import structlog

from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.proof import proofs
from hedgelock_ingest_tests.proof_table import PROVED, ProofTable

NO_RETENTION = {"log.initial.task.delay.ms": 0, "log.retention.check.interval.ms": 86_400_000}
"""After half a minute, then each five, Kafka deletes what is older than a topic keeps: here records of years ago."""
GATE_SEED = 1
LONG_FIRST = ("defs/", "processes/")
"""Tests of these folders start processes and wait: begun first, they do not keep one worker busy at the end."""

# No deadline: the speed of this machine is no property of an example.
# "default" by name: where CI is set, hypothesis starts with a profile that draws the same examples each time.
_DEFAULT = hypothesis.settings.get_profile("default")
hypothesis.settings.register_profile("gate", _DEFAULT, derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("proof", _DEFAULT, deadline=None, print_blob=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the two runs."""
    group = parser.getgroup("hedgelock")
    group.addoption("--proof", action="store_true", help="run everything, also what the gate leaves out, as make proof")
    group.addoption("--seed", type=int, help=f"draw moments of faults from it; {GATE_SEED} in the gate, else random")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the run's seed and profile; workers get the options as they are after this."""
    _restore_signals()
    is_proof = config.getoption("proof")
    if config.option.seed is None:
        config.option.seed = random.randrange(2**32) if is_proof else GATE_SEED
    hypothesis.settings.load_profile("proof" if is_proof else "gate")
    if is_proof and not hasattr(config, "workerinput"):
        config.pluginmanager.register(ProofTable())


def _restore_signals() -> None:
    """
    Restore signals that are ignored, as in background commands of a shell without job control.

    Every process that a test starts would inherit that, and Ctrl-C would not end it.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_report_header(config: pytest.Config) -> str:
    """Report the seed, which is needed to repeat this run."""
    return f"run: {'proof' if config.getoption('proof') else 'gate'}, --seed {config.option.seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests of the proof in a gate run, and start with the slowest tests."""
    if not config.getoption("proof"):
        left_out = [item for item in items if item.get_closest_marker("proof")]
        items[:] = [item for item in items if not item.get_closest_marker("proof")]
        config.hook.pytest_deselected(items=left_out)
    items.sort(key=lambda item: not any(folder in item.nodeid for folder in LONG_FIRST))


@pytest.fixture
def moments(request: pytest.FixtureRequest) -> random.Random:
    """Source of the times and places of faults; the same for a test whatever else runs, printed when it fails."""
    seed: int = request.config.option.seed
    print(f"--seed {seed}")
    return random.Random(zlib.crc32(request.node.name.encode()) + seed)


@pytest.fixture(autouse=True)
def _default_logging() -> Iterator[None]:
    """Forget the level that a test has configured: a command for people logs nothing, and so would later tests."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _proofs_of_this_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Add the figures of a test's proofs to its report, for the table."""
    proofs.clear()
    yield
    request.node.user_properties.extend((PROVED, proved.figures()) for proved in proofs)


@pytest.fixture(scope="session")
def kafka() -> Iterator[EmbeddedKafka]:
    """The broker that all tests share, started with the first; never stop, freeze or kill it."""
    with EmbeddedKafka(settings=NO_RETENTION) as broker:
        yield broker


@pytest.fixture
def own_kafka() -> Iterator[Callable[..., EmbeddedKafka]]:
    """Start a broker that only this test uses; takes the arguments of EmbeddedKafka."""
    with ExitStack() as brokers:

        def start(*arguments: Any, **options: Any) -> EmbeddedKafka:
            return brokers.enter_context(EmbeddedKafka(*arguments, **options))

        yield start


@pytest.fixture
def topic_prefix() -> str:
    """Prefix of topic names, which separates tests on the shared broker."""
    return f"t{uuid.uuid4().hex[:12]}-"
