"""Commands for the stream: run it, check its settings and connections, replay its journal."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hedgelock_ingest.cli.settings_and_output import broken_pipe_ignored, load_for_command
from hedgelock_ingest.errors import SettingsInvalid

if TYPE_CHECKING:
    from hedgelock_ingest.settings import Settings


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

    with broken_pipe_ignored():
        replay(journal, to=to, settings=settings)


def _chosen_shard(settings: "Settings", name: str | None) -> str:
    if name is None and len(settings.stream_shards) > 1:
        known = ", ".join(settings.stream_shards)
        raise SettingsInvalid([f"STREAM_SHARDS names several shards; choose one with --shard: {known}"])
    return settings.shard(name or settings.stream_shards[0]).name
