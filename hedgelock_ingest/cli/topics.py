"""Commands for topics: their records, their state in Kafka, their schemas."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hedgelock_ingest.cli.settings_and_output import broken_pipe_ignored, load_for_command, print_errors

if TYPE_CHECKING:
    from hedgelock_ingest.kafka.tail import Filter, ReadRecord
    from hedgelock_ingest.kafka.topic_reports import TopicReport
    from hedgelock_ingest.settings import Settings


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

    Each line holds time, partition/offset, key and value. If there are no records, a line on stderr reports it.

    \b
    Examples:
      hedgelock-ingest tail market-data -n 3
      hedgelock-ingest tail market-trades --follow --key linear:BTCUSDT
      hedgelock-ingest tail account-updates -n 1 --json | jq .ltv
    """
    from hedgelock_ingest.kafka.tail import Filter

    settings = load_for_command(for_people=True)
    with broken_pipe_ignored():
        try:
            asyncio.run(_tail(settings, topic, count=count, follow=follow, only=Filter(partition, key), raw=raw))
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def topics(
    create: Annotated[bool | None, typer.Option("--create/--no-create", help="Overrides KAFKA_CREATE_TOPICS.")] = None,
) -> None:
    """
    Show the topics, and create those that are missing.

    Differences from the expected configuration are listed. An existing topic is never altered. Exit code 1: a topic
    is still missing.
    """
    from hedgelock_ingest.kafka.durability import durability_warnings
    from hedgelock_ingest.kafka.topic_admin import ensure_topics
    from hedgelock_ingest.kafka.topic_reports import HELPFUL_OPERATIONS, REQUIRED_OPERATIONS, denials

    settings = load_for_command(for_people=True)
    reports = asyncio.run(ensure_topics(settings, create=create))
    _print_topics(reports)
    for denial in denials(settings, reports, REQUIRED_OPERATIONS + HELPFUL_OPERATIONS):
        print_errors(f"warning: {denial}")
    for warning in durability_warnings(reports, settings):
        print_errors(f"warning: {warning}")
    raise typer.Exit(0 if all(report.exists for report in reports) else 1)


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


async def _tail(settings: "Settings", topic: str, *, count: int, follow: bool, only: "Filter", raw: bool) -> None:
    from hedgelock_ingest.kafka.tail import Filter, tail

    def report_no_records() -> None:
        print_errors("no records yet" if only == Filter() else "no such records yet")

    async for record in tail(settings, topic, count=count, follow=follow, only=only, on_none=report_no_records):
        print((record.value or b"null").decode(errors="replace") if raw else _line(record), flush=follow)
    sys.stdout.flush()


def _line(record: "ReadRecord") -> str:
    from hedgelock_ingest.models.times import utc_time
    from hedgelock_ingest.models.values import iso_utc

    value = "deleted" if record.value is None else record.value.decode(errors="replace")
    location = f"{record.partition}/{record.offset}"
    return f"{iso_utc(utc_time(record.timestamp_ms))}  {location:<10}  {record.key or '-'}  {value}"


def _print_topics(reports: Sequence["TopicReport"]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("topic", "partitions", "copies", "kept", "cleanup", "state", box=None, pad_edge=False)
    for each in reports:
        table.add_row(
            each.name,
            *(
                (str(each.partitions), str(each.replication), _retention(each.retention_ms), each.cleanup or "unknown")
                if each.exists
                else ("", "", "", "")
            ),
            _state(each),
        )
    console = Console()
    console.print(table) if console.is_terminal else Console(width=160).print(table)


def _state(report: "TopicReport") -> str:
    denied = [f"without permission to {operation}" for operation in report.denied]
    if report.exists and (report.differences or denied):
        return "; ".join([*report.differences, *denied])
    if report.is_missing:
        return "; ".join(["missing", *denied])
    return "created" if report.created else "as expected" if report.exists else "unknown: " + "; ".join(denied)


def _retention(retention_ms: int | None) -> str:
    if retention_ms is None:
        return "unknown"
    if retention_ms < 0:
        return "unlimited"
    hours = retention_ms / 3_600_000
    return f"{hours / 24:g} days" if hours >= 48 else f"{hours:g} hours"
