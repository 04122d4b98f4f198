"""The demo's display: a live view for a terminal, one line of text elsewhere."""

from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hedgelock_ingest.sandbox.demo.record_counts import RecordCounts


@dataclass(frozen=True, slots=True)
class DemoState:
    """The displayed state; `statistics` is the answer of `/stats`, None while there is none."""

    statistics: dict[str, Any] | None
    counts: RecordCounts
    stream_pid: int | None
    starts: int
    bootstrap_servers: str
    rest_url: str
    places: list[tuple[str, str]]
    folder: str
    log: str


def line_of(now: DemoState) -> str:
    """Return the state as one line of text."""
    counts = now.counts
    read_back = (
        f"{counts.total} records read back, {counts.duplicated} duplicated, {counts.out_of_order} out of order, "
    )
    read_back += f"{counts.missing_updates} book updates missing"
    if now.statistics is None:
        return f"the stream does not answer yet; {read_back}"
    statistics = now.statistics
    latency = statistics["receive_to_acknowledged"]["percentiles_ms"]
    prices = " ".join(f"{key}={price}" for key, price in sorted(counts.prices.items()))
    if counts.account is not None:
        prices += f" LTV={counts.account.ltv}"
    return (
        f"{statistics['frames_per_s']:.0f} frames/s into Kafka, p50 {_ms(latency['p50'])}, p99 {_ms(latency['p99'])}, "
        f"lag {statistics['journal']['lag_frames']} frames, {statistics['gaps']} gaps, "
        f"{statistics['dead_letters']} dead letters; {read_back}; {prices}"
    )


def commands_of(now: DemoState) -> list[tuple[str, str]]:
    """Return the commands to try and the places of the files, each after its name."""
    restarts = now.starts - 1
    times = f"{restarts} {'time' if restarts == 1 else 'times'} so far"
    crash = [("Break it", f"kill -9 {now.stream_pid}   (the stream, started again by itself; {times})")]
    kafka = f"KAFKA_BOOTSTRAP_SERVERS={now.bootstrap_servers}"
    return [
        *(crash if now.stream_pid is not None else []),
        ("records", f"{kafka} .venv/bin/hedgelock-ingest tail market-data -f"),
        ("a fault", f"""curl {now.rest_url}/sandbox/faults -d '{{"fault":"drop_lines"}}'"""),
        ("data, log", f"{now.folder}, {now.log}"),
    ]


def view_of(now: DemoState) -> RenderableType:
    """Return the state as a view for a terminal."""
    return Panel(
        Group(_flow(now), Text(), _prices(now), _account(now), Text(), _guarantee(now), Text(), _places(now)),
        title="HedgeLock Ingest: Bybit (simulated) into Kafka (real)",
        subtitle="Ctrl-C ends everything",
    )


def _flow(now: DemoState) -> RenderableType:
    if now.statistics is None:
        return Text("The stream does not answer yet …", style="yellow")
    statistics, journal = now.statistics, now.statistics["journal"]
    latency = statistics["receive_to_acknowledged"]["percentiles_ms"]
    lines = [line for line in statistics["lines"] if line["state"] == "connected"]
    grid = Table.grid(padding=(0, 3))
    grid.add_row(
        "frames into Kafka",
        f"{statistics['frames_per_s']:.0f} a second",
        f"{statistics['frames_acknowledged']} since start",
    )
    grid.add_row("read → acknowledged", f"p50 {_ms(latency['p50'])}", f"p99 {_ms(latency['p99'])}, last minute")
    grid.add_row(
        "journal", f"{journal['lag_frames']} frames wait", f"{journal['backlog_bytes'] / 1e6:.1f} MB unacknowledged"
    )
    grid.add_row(
        "lines", f"{len(lines)} of {len(statistics['lines'])} live", f"{statistics['copies_dropped']} copies dropped"
    )
    kafka = statistics["kafka"]
    grid.add_row("Kafka", "connected" if kafka["state"] == "closed" else "away", kafka["reason"] or "")
    grid.add_row("found", f"{statistics['gaps']} gaps", f"{statistics['dead_letters']} dead letters")
    return grid


def _prices(now: DemoState) -> RenderableType:
    grid = Table.grid(padding=(0, 3))
    for key, price in sorted(now.counts.prices.items()):
        grid.add_row(key, Text(price, style="bold"))
    return grid if now.counts.prices else Text("No price in Kafka yet …", style="yellow")


def _account(now: DemoState) -> RenderableType:
    account = now.counts.account
    if account is None:
        return Text("No account in Kafka yet …", style="yellow")
    grid = Table.grid(padding=(0, 3))
    loan = f"{account.loan_amount} USD borrowed on {account.collateral_value} USD of collateral"
    grid.add_row("loan", Text(f"LTV {account.ltv}", style="bold"), loan)
    held = ", ".join(f"{amount} {coin}" for coin, amount in sorted(account.balances.items()))
    open_positions = [f"{each['side']} {each['size']} {each['symbol']}" for each in account.positions]
    grid.add_row("account", ", ".join(open_positions) or "no open position", held)
    return grid


def _guarantee(now: DemoState) -> RenderableType:
    counts = now.counts
    text = Text(f"Read back from Kafka: {counts.total} records, ")
    for count, what in (
        (counts.duplicated, "duplicated"),
        (counts.out_of_order, "out of order"),
        (counts.missing_updates, "book updates missing"),
    ):
        text.append(f"{count} {what}  ", style="bold green" if count == 0 else "bold red")
    return text


def _ms(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds} ms"


def _places(now: DemoState) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for what, text in commands_of(now):
        grid.add_row(what, text, style="bold" if what == "Break it" else "")
    for place, what in now.places:
        grid.add_row(what, place)
    return grid
