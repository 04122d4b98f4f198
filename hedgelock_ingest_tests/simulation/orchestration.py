"""Restart of the process: by a supervisor at once, or by Dagster's daemon with the real sensor's rules."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.defs.stream.heartbeats import Heartbeat
from hedgelock_ingest.defs.stream.supervisor import Decision, Phase, RunSeen, SupervisorTimeouts, Suspicion, decide
from hedgelock_ingest_tests.simulation.process import SimulatedProcess

_TICK_S = 5.0
_LOOK_S = 2.0

type Start = Callable[[], SimulatedProcess]


class Orchestrator(Protocol):
    """Keeps a process running until `is_resting` is set."""

    process: SimulatedProcess | None
    is_resting: bool

    async def run(self) -> None:
        """Start processes without end."""
        ...

    def stop(self) -> None:
        """Ask the process to drain and end; another one follows unless the orchestrator rests."""
        ...


class Supervisor:
    """Starts the next process soon after the last one ended."""

    def __init__(self, start: Start, clock: Clock, random: Random) -> None:
        self.process: SimulatedProcess | None = None
        self.is_resting = False
        self._start = start
        self._clock = clock
        self._random = random

    async def run(self) -> None:
        """Check the process every 50 ms."""
        while True:
            if self.process is None:
                self.process = self._start()
            elif self.process.is_over and not self.is_resting:
                await self._clock.sleep(self._random.choice((0.0, 0.05, 0.5, 3.0)))
                self.process = self._start()
            await self._clock.sleep(0.05)

    def stop(self) -> None:
        """Ask the process to drain and end."""
        if self.process is not None:
            self.process.stop()


@dataclass(slots=True)
class Run:
    """One run in Dagster's storage."""

    run_id: str
    phase: Phase
    created_s: float
    since_s: float
    started_s: float | None = None
    ended_s: float | None = None
    process: SimulatedProcess | None = None

    def enter(self, phase: Phase, now_s: float) -> None:
        """Change the status."""
        self.phase, self.since_s = phase, now_s
        if phase is Phase.STARTED:
            self.started_s = now_s
        if phase.is_over:
            self.ended_s = now_s

    def seen(self) -> RunSeen:
        """Return the run as the sensor sees it."""
        return RunSeen(self.run_id, self.phase, self.created_s, self.since_s, self.started_s, self.ended_s)


class Daemon:
    """
    Dagster's daemon, its storage, and the workers of its runs, as far as the stream's sensor sees them.

    A worker checks its run every two seconds and writes a heartbeat. A killed worker leaves a run with the status
    started, which the sensor detects.
    """

    def __init__(self, start: Start, clock: Clock, random: Random) -> None:
        self.process: SimulatedProcess | None = None
        self.is_resting = False
        self.runs: list[Run] = []
        self._start = start
        self._clock = clock
        self._random = random
        self._heartbeat: Heartbeat | None = None
        self._suspicion: Suspicion | None = None
        self._keys: set[str] = set()
        self._next_look_s = 0.0

    async def run(self) -> None:
        """Tick every five seconds; let workers act in between."""
        next_tick_s = self._clock.monotonic()
        while True:
            if self._clock.monotonic() >= next_tick_s:
                next_tick_s += _TICK_S
                self._tick()
            self._work()
            await self._clock.sleep(0.25)

    def stop(self) -> None:
        """Terminate the run, as its button in the UI does."""
        for run in self.runs:
            if run.phase is Phase.STARTED:
                run.enter(Phase.CANCELING, self._now_s)

    @property
    def _now_s(self) -> float:
        return self._clock.wall_ns() / 1e9

    def _tick(self) -> None:
        if self.is_resting:
            return
        decision = self._decide(self._suspicion)
        self._suspicion = decision.suspicion
        if decision.end:
            for run in self.runs:
                if run.run_id in decision.end and not run.phase.is_over:
                    run.enter(Phase.FAILED, self._now_s)
            decision = self._decide(None)
        if decision.start_after is not None and decision.start_after not in self._keys:
            self._keys.add(decision.start_after)
            now_s = self._now_s
            self.runs.insert(0, Run(f"run-{len(self.runs) + 1}", Phase.QUEUED, now_s, now_s))

    def _decide(self, suspicion: Suspicion | None) -> Decision:
        return decide(self._now_s, [run.seen() for run in self.runs], self._heartbeat, suspicion, SupervisorTimeouts())

    def _work(self) -> None:
        is_time_to_look = self._clock.monotonic() >= self._next_look_s
        if is_time_to_look:
            self._next_look_s = self._clock.monotonic() + _LOOK_S
        for run in self.runs:
            process = run.process
            if process is None:
                self._launch(run)
            elif process.is_over:
                self._end(run, process)
            elif is_time_to_look:
                self._look(run, process)

    def _launch(self, run: Run) -> None:
        if run.phase.is_over or self._random.random() < 0.7:
            return
        if run.phase is Phase.QUEUED:
            run.enter(Phase.STARTING, self._now_s)
        elif run.phase is Phase.STARTING:
            run.enter(Phase.STARTED, self._now_s)
            run.process = self.process = self._start()

    def _end(self, run: Run, process: SimulatedProcess) -> None:
        if run.phase.is_over or process.was_killed:
            return
        if process.error is not None:
            run.enter(Phase.FAILED, self._now_s)
        else:
            run.enter(Phase.CANCELED if run.phase is Phase.CANCELING else Phase.SUCCEEDED, self._now_s)

    def _look(self, run: Run, process: SimulatedProcess) -> None:
        if run.phase is not Phase.STARTED:
            process.stop()
        elif process.service is not None:
            self._heartbeat = Heartbeat(run.run_id, "host", 1, self._now_s, 0)
