"""
Commands of `hedgelock-ingest`; each one parses its arguments and calls a service.

Imports are inside the commands, so that `--help` answers at once.
"""

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hedgelock_ingest.cli.gaps_and_dead_letters import gaps_app, letters_app
from hedgelock_ingest.cli.startup import load_for_command
from hedgelock_ingest.errors import IngestError, KeyRefused, SettingsInvalid

if TYPE_CHECKING:
    from hedgelock_ingest.kafka.tail import Filter, ReadRecord
    from hedgelock_ingest.kafka.topic_admin import TopicReport
    from hedgelock_ingest.settings import Settings

_INTERRUPTED = 130

_HELP = """
Bring Bybit's account, loan and market data into Kafka: exactly once, in order, with every gap recorded.

\b
First steps:
  hedgelock-ingest demo                          everything on this machine: no account, no key, no Kafka
  hedgelock-ingest check                         check the settings and all connections
  hedgelock-ingest run                           the stream, until Ctrl-C or SIGTERM
  hedgelock-ingest tail market-data --follow     look at what arrives

\b
Settings come from, the first one wins:
  1. the environment, such as BYBIT_SPOT_SYMBOLS=BTCUSDT,ETHUSDT
  2. a YAML file with the same names: HEDGELOCK_CONFIG, or config/collector.yaml if it is there
  3. defaults: Bybit's testnet, BTCUSDT, Kafka on localhost:9092
"hedgelock-ingest check" shows each setting with its origin; docs/settings.md describes them all.

\b
Exit codes:
  0  a clean stop
  1  anything else that went wrong, reported in one line; MONITORING_LOG_LEVEL=DEBUG adds the traceback
  2  wrong settings or arguments, each one named
  3  Bybit refuses the API key, or the key may trade and BYBIT_ALLOW_TRADING_KEY is not set
"""

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
sandbox = typer.Typer(
    help="""
    Start a local substitute for Bybit or Kafka.

    Each prints one line of JSON with its addresses when it is ready, then stays until Ctrl-C or SIGTERM.
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(gaps_app, name="gaps")
app.add_typer(letters_app, name="dead-letters")
app.add_typer(sandbox, name="sandbox")


def main() -> None:
    """Run a command and end the process with its exit code; no traceback unless logs are set to DEBUG."""
    try:
        app()
    except SettingsInvalid as error:
        _print_errors("wrong settings:", *(f"  {problem}" for problem in error.problems))
        sys.exit(2)
    except KeyRefused as error:
        _fail(error, str(error), 3)
    except IngestError as error:
        _fail(error, str(error), 1)
    except Exception as error:  # noqa: BLE001  # the outermost handler: any error becomes one line and an exit code
        _fail(error, f"{type(error).__name__}: {error}", 1)
    except SystemExit as stop:
        sys.exit(1 if stop.code == _INTERRUPTED else stop.code)


@app.command()
def run(
    shard: Annotated[
        str | None, typer.Option(help="The shard to run; required if STREAM_SHARDS names several.")
    ] = None,
) -> None:
    """
    Run the stream, without Dagster, until Ctrl-C or SIGTERM.

    Health, stats and metrics are at MONITORING_HOST and MONITORING_PORT. Received frames are drained into Kafka
    before the end, for at most STOP_TIMEOUT seconds; the rest stays in the journal, and the next start continues
    from there.

    \b
    Examples:
      hedgelock-ingest run
      BYBIT_SPOT_SYMBOLS= BYBIT_LINEAR_SYMBOLS=BTCUSDT,ETHUSDT hedgelock-ingest run
      hedgelock-ingest run --shard linear        where the settings file describes shards
    """
    settings = load_for_command()
    chosen = _chosen_shard(settings, shard)
    from hedgelock_ingest.web import serving

    raise typer.Exit(serving.run(settings, chosen))


@app.command()
def demo(
    duration: Annotated[float | None, typer.Option(help="Seconds to run; without it, until Ctrl-C.", min=1)] = None,
    dagster: Annotated[
        bool, typer.Option(help="Run the stream and the polls under Dagster, with its web pages.")
    ] = True,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove the data of an earlier demo first.")] = False,
) -> None:
    """
    Run the complete system on this machine alone.

    A simulated Bybit, a real Kafka, the stream, and Dagster's web pages; needs no account and no key, and prints the
    addresses. The first start downloads Kafka, about 44 MB. Its data stay in .hedgelock/demo for the next start.
    """
    from hedgelock_ingest.sandbox.demo.demo import run_demo

    raise typer.Exit(run_demo(duration_s=duration, with_dagster=dagster, fresh=fresh))


@app.command()
def check() -> None:
    """
    Show every setting, and test all connections.

    Kafka and its topics, Bybit's lines and REST, the clock, the key, and the journal's folder. Changes nothing
    and ends within seconds. Exit code 0: no check failed; 1: a check failed, with the action to take.
    """
    from hedgelock_ingest.audit.check import Severity, run_checks, setting_lines, worst

    settings = load_for_command(for_people=True)
    print("Settings, secrets hidden:")
    for line in setting_lines(settings):
        print(f"  {line}")
    print("\nChecks:", flush=True)
    findings = asyncio.run(run_checks(settings))
    colours = {Severity.OK: typer.colors.GREEN, Severity.WARNING: typer.colors.YELLOW}
    for severity, subject, text in findings:
        coloured = typer.style(f"{severity:<7}", fg=colours.get(severity, typer.colors.RED))
        typer.echo(f"  {coloured}  {subject:<14}  {text}")
    raise typer.Exit(1 if worst(findings) is Severity.FAILED else 0)


@app.command()
def tail(
    topic: Annotated[
        str, typer.Argument(help="The logical name of a topic, such as market-data, or its name in Kafka.")
    ],
    count: Annotated[int, typer.Option("-n", "--count", help="Number of last records.", min=0)] = 10,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Continue with each new record.")] = False,
    key: Annotated[str | None, typer.Option(help="Only this key, such as linear:BTCUSDT.")] = None,
    partition: Annotated[int | None, typer.Option(help="Only this partition.", min=0)] = None,
    raw: Annotated[bool, typer.Option("--json", help="Only the values, one line of JSON per record.")] = False,
) -> None:
    """
    Show the last records of a topic, and those that follow.

    Each line holds time, partition/offset, key and value. If there are no records, stderr says so.

    \b
    Examples:
      hedgelock-ingest tail market-data -n 3
      hedgelock-ingest tail market-trades --follow --key linear:BTCUSDT
      hedgelock-ingest tail account-updates -n 1 --json | jq .ltv
    """
    from hedgelock_ingest.kafka.tail import Filter

    settings = load_for_command(for_people=True)
    with _broken_pipe_ignored():
        try:
            asyncio.run(_tail(settings, topic, count=count, follow=follow, only=Filter(partition, key), raw=raw))
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


@app.command()
def replay(
    journal: Annotated[Path, typer.Argument(help="The folder of a journal, such as .hedgelock/journal/main.")],
    to: Annotated[
        str, typer.Option(help='Destination of the records: "-" is stdout, any other text a prefix of topic names.')
    ] = "-",
) -> None:
    """
    Feed a recorded journal through the pipeline again.

    The same journal yields the same records, byte for byte.

    \b
    Examples:
      hedgelock-ingest replay .hedgelock/journal/main | jq .
      hedgelock-ingest replay .hedgelock/journal/main --to trial-
    """
    settings = load_for_command(for_people=True)
    from hedgelock_ingest.audit.replay import replay

    with _broken_pipe_ignored():
        replay(journal, to=to, settings=settings)


@app.command()
def topics(
    create: Annotated[bool | None, typer.Option("--create/--no-create", help="Overrides KAFKA_CREATE_TOPICS.")] = None,
) -> None:
    """
    Show the topics, and create those that are missing.

    Differences from the expected configuration are listed. An existing topic is never altered. Exit code 1: a topic
    is still missing.
    """
    from hedgelock_ingest.kafka.topic_admin import ensure_topics

    reports = asyncio.run(ensure_topics(load_for_command(for_people=True), create=create))
    _print_topics(reports)
    raise typer.Exit(0 if all(report.exists for report in reports) else 1)


@app.command()
def schemas(
    directory: Annotated[Path | None, typer.Option(help="Write one file per topic there, instead of stdout.")] = None,
) -> None:
    """
    Print the schema of each topic's message.

    JSON Schema (draft 2020-12), and an AsyncAPI 3 document of them all.
    """
    import json

    from hedgelock_ingest.models.schemas import documents

    if directory is None:
        print(json.dumps(documents(), indent=2))
        return
    directory.mkdir(parents=True, exist_ok=True)
    for name, document in documents().items():
        (directory / name).write_text(json.dumps(document, indent=2) + "\n")
        print(directory / name)


@sandbox.command("exchange")
def sandbox_exchange(
    port: Annotated[int, typer.Option(help="0 takes a free port.", min=0, max=65535)] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same prices.")] = 1,
    rate: Annotated[
        float | None, typer.Option(help="Frames per second over all channels; without it Bybit's typical rate.", min=0)
    ] = None,
    symbols: Annotated[str, typer.Option(help="Symbols of both categories.")] = "BTCUSDT,ETHUSDT",
    recording: Annotated[
        Path | None, typer.Option("--replay", help="Send the frames of this file instead.", exists=True)
    ] = None,
    course: Annotated[
        str, typer.Option("--scenario", help="Course of prices against the loan: calm, margin-call or liquidation.")
    ] = "calm",
    over: Annotated[float, typer.Option(help="Seconds until the scenario's threshold is crossed.", min=0.1)] = 60.0,
    key: Annotated[
        str | None, typer.Option(help="Also print this API key of the account and its secret: read-only, trading, ...")
    ] = None,
    account_life: Annotated[
        float, typer.Option(help="Mean seconds between orders of the account; 0 places none.", min=0)
    ] = 3.0,
) -> None:
    """
    Simulate Bybit v5: WebSocket and REST on one port.

    \b
    Examples:
      hedgelock-ingest sandbox exchange --scenario margin-call --key read-only
      hedgelock-ingest sandbox exchange --port 9001
      BYBIT_PUBLIC_WS_URL=ws://127.0.0.1:9001/v5/public \\
      BYBIT_REST_URL=http://127.0.0.1:9001 hedgelock-ingest run
      curl http://127.0.0.1:9001/sandbox/faults -d '{"fault":"drop_lines","category":"linear"}'
    """
    from hedgelock_ingest.sandbox.exchange import Scenario, serve

    names = tuple(name.strip() for name in symbols.split(",") if name.strip())
    serve(
        Scenario(
            port=port,
            seed=seed,
            rate=rate,
            spot_symbols=names,
            linear_symbols=names,
            replay=recording,
            course=course,
            course_s=over,
            key=key,
            account_life_s=account_life or None,
        )
    )


@sandbox.command("kafka")
def sandbox_kafka(
    port: Annotated[int, typer.Option(help="0 takes a free port.", min=0, max=65535)] = 0,
    data_directory: Annotated[
        Path | None, typer.Option(help="Keep the data there; without it they are removed at exit.")
    ] = None,
) -> None:
    """Run a single-node Apache Kafka broker."""
    from hedgelock_ingest.sandbox.kafka import serve

    serve(port=port, data_directory=data_directory)


@contextmanager
def _broken_pipe_ignored() -> Iterator[None]:
    """End cleanly when the reader of the output, such as `head`, closes the pipe."""
    try:
        yield
    except BrokenPipeError:
        # Python must not try to flush to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _chosen_shard(settings: "Settings", name: str | None) -> str:
    if name is None and len(settings.stream_shards) > 1:
        known = ", ".join(settings.stream_shards)
        raise SettingsInvalid([f"STREAM_SHARDS names several shards; choose one with --shard: {known}"])
    return settings.shard(name or settings.stream_shards[0]).name


async def _tail(settings: "Settings", topic: str, *, count: int, follow: bool, only: "Filter", raw: bool) -> None:
    from hedgelock_ingest.kafka.tail import Filter, tail

    def report_no_records() -> None:
        _print_errors("no records yet" if only == Filter() else "no such records yet")

    async for record in tail(settings, topic, count=count, follow=follow, only=only, on_none=report_no_records):
        print((record.value or b"null").decode(errors="replace") if raw else _line(record), flush=follow)
    sys.stdout.flush()


def _line(record: "ReadRecord") -> str:
    when = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")
    value = "deleted" if record.value is None else record.value.decode(errors="replace")
    location = f"{record.partition}/{record.offset}"
    return f"{when.replace('+00:00', 'Z')}  {location:<10}  {record.key or '-'}  {value}"


def _print_topics(reports: Sequence["TopicReport"]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("topic", "partitions", "copies", "kept", "cleanup", "state", box=None, pad_edge=False)
    for each in reports:
        state = "created" if each.created else "as expected" if each.exists else "missing"
        table.add_row(
            each.name,
            *(
                (str(each.partitions), str(each.replication), _retention(each.retention_ms), each.cleanup)
                if each.exists
                else ("", "", "", "")
            ),
            "; ".join(each.differences) if each.exists and each.differences else state,
        )
    console = Console()
    console.print(table) if console.is_terminal else Console(width=160).print(table)


def _retention(retention_ms: int) -> str:
    if retention_ms < 0:
        return "unlimited"
    hours = retention_ms / 3_600_000
    return f"{hours / 24:g} days" if hours >= 48 else f"{hours:g} hours"


def _print_errors(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _fail(error: BaseException, text: str, code: int) -> None:
    """Print an error in one line without secrets, and exit."""
    from hedgelock_ingest.redaction import Redaction

    secret_texts, is_debugging = _secrets_and_debugging()
    redaction = Redaction(secret_texts)
    if is_debugging:
        import traceback

        _print_errors(redaction.text("".join(traceback.format_exception(error))))
    _print_errors("error: " + redaction.text(" ".join(text.split())))
    sys.exit(code)


def _secrets_and_debugging() -> tuple[Sequence[str], bool]:
    from hedgelock_ingest.settings import load_settings, secrets

    try:
        settings = load_settings()
    except SettingsInvalid:
        return (), False
    return secrets(settings), settings.monitoring_log_level == "DEBUG"
