"""Commands for gaps and dead letters."""

import asyncio
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from hedgelock_ingest.cli.settings_and_output import load_for_command
from hedgelock_ingest.errors import IngestError

if TYPE_CHECKING:
    from hedgelock_ingest.audit.gaps import FeedVerification, Verification

_JSON_NAMES = {"unexplained": "holes"}
"""Fields of `gaps verify --json` whose published name differs from the attribute."""

gaps_app = typer.Typer(
    help="""
    List the recorded gaps, or verify that there are no others.

    \b
    Examples:
      hedgelock-ingest gaps
      hedgelock-ingest gaps --since 2026-11-21T08:00:00Z --json
      hedgelock-ingest gaps verify --from 2026-11-21T08:00:00Z --to 2026-11-21T09:00:00Z
    """,
    rich_markup_mode=None,
    invoke_without_command=True,
)


@gaps_app.callback()
def gaps(
    context: typer.Context,
    since: Annotated[str | None, typer.Option(help="Only gaps that ended at or after this time, ISO 8601.")] = None,
    feed: Annotated[str | None, typer.Option(help="Only feeds whose name begins with this text.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per gap.")] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    from hedgelock_ingest.audit.gaps import list_gaps, select
    from hedgelock_ingest.kafka.topic_admin import require_topic
    from hedgelock_ingest.models.topics import Topic
    from hedgelock_ingest.models.values import iso_utc

    settings, since_time = load_for_command(for_people=True), _time(since)
    recorded = asyncio.run(list_gaps(settings))
    found = select(recorded, since=since_time, feed=feed)
    for gap in found:
        if as_json:
            print(gap.model_dump_json(by_alias=True))
            continue
        filled = gap.healed if gap.healed == "yes" else f"{gap.healed}, missing: {gap.missing}"
        print(f"{iso_utc(gap.from_)}  {iso_utc(gap.to)}  {gap.feed}  filled: {filled}  reason: {gap.reason}")
    if not recorded:
        asyncio.run(require_topic(settings, Topic.INGEST_GAPS))
    if not found:
        ended = f", ended at or after {iso_utc(since_time)}" if since_time else ""
        text = _none_of("gap", feed, len(recorded), ended) if recorded else "No gap is recorded."
        print(text, file=sys.stderr if as_json else sys.stdout)


@gaps_app.command("verify")
def gaps_verify(
    since: Annotated[str, typer.Option("--from", help="Start of the time span, ISO 8601.")],
    until: Annotated[str | None, typer.Option("--to", help="End of the time span; default now.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The complete result as JSON.")] = False,
) -> None:
    """
    Read a time span of the market topics and report whether anything is missing besides the recorded gaps.

    The first line is the result; a line for each topic and key follows, then the recorded gaps. Exit code 0: complete
    but for these; 1: something is missing, duplicated or out of order, or there is no record at all.
    """
    from hedgelock_ingest.audit.gaps import verify

    began, ended = _time(since), _time(until) or datetime.now(UTC)
    assert began is not None
    verification = asyncio.run(verify(load_for_command(for_people=True), since=began, until=ended))
    if as_json:
        import json

        feeds = [
            {_JSON_NAMES.get(name, name): getattr(each, name) for name in each.__slots__} for each in verification.feeds
        ]
        found_gaps = [gap.model_dump(mode="json", by_alias=True) for gap in verification.gaps]
        print(json.dumps({"complete": verification.is_complete, "feeds": feeds, "gaps": found_gaps}))
        raise typer.Exit(0 if verification.is_complete else 1)
    print("\n".join([_summary(verification), *map(_line_of, verification.feeds), *_gap_lines(verification)]))
    raise typer.Exit(0 if verification.is_complete else 1)


def _summary(verification: "Verification") -> str:
    if not verification.feeds:
        return "No record in this span: nothing to verify."
    gaps_text = "1 recorded gap" if len(verification.gaps) == 1 else f"{len(verification.gaps)} recorded gaps"
    if verification.is_complete:
        return f"Complete: nothing is missing but {gaps_text}."
    bad = sum(not feed.is_complete for feed in verification.feeds)
    return f"NOT COMPLETE: {bad} of {len(verification.feeds)} feeds, besides {gaps_text}."


def _line_of(feed: "FeedVerification") -> str:
    state = "complete" if feed.is_complete else "NOT COMPLETE: " + "; ".join(feed.unexplained[:3])
    if feed.doubled or feed.out_of_order:
        state += f" {feed.doubled} duplicated, {feed.out_of_order} out of order"
    numbers = "" if feed.first_sequence is None else f"{feed.first_sequence}..{feed.last_sequence}, "
    return (
        f"{feed.topic.value:<20} {feed.key:<18} {feed.records:>8} records, {numbers}"
        f"silence {feed.longest_silence_ms / 1000:.1f} s, {feed.gaps} gaps: {state}"
    )


def _gap_lines(verification: "Verification") -> list[str]:
    from hedgelock_ingest.models.values import iso_utc

    return [
        f"gap: {gap.feed} {iso_utc(gap.from_)} to {iso_utc(gap.to)}, filled: {gap.healed}, reason: {gap.reason}"
        for gap in verification.gaps
    ]


letters_app = typer.Typer(
    help="""
    List dead letters, and replay them.

    Frames that could not be decoded, and records that Kafka refuses permanently: complete, with the reason.
    """,
    rich_markup_mode=None,
    no_args_is_help=True,
)
_FeedOption = Annotated[str | None, typer.Option(help="Only feeds whose name begins with this text.")]


@letters_app.command("list")
def letters_list(feed: _FeedOption = None) -> None:
    """List dead letters: id, time, feed, line, size, reason."""
    from hedgelock_ingest.audit.dead_letters import list_dead_letters
    from hedgelock_ingest.kafka.topic_admin import require_topic
    from hedgelock_ingest.models.topics import Topic
    from hedgelock_ingest.models.values import iso_utc

    settings = load_for_command(for_people=True)
    recorded = asyncio.run(list_dead_letters(settings))
    found = [each for each in recorded if feed is None or each.feed.startswith(feed)]
    for each in found:
        location = "" if each.is_in_topic else " (only in the journal)"
        print(
            f"{each.id}  {iso_utc(each.at)}  {each.feed}  {each.line}  {len(each.raw)} bytes  {each.reason}{location}"
        )
    if not recorded:
        asyncio.run(require_topic(settings, Topic.INGEST_DEAD_LETTERS))
        print("There are no dead letters.")
    elif not found:
        print(_none_of("dead letter", feed, len(recorded)))


@letters_app.command("show")
def letters_show(letter_id: Annotated[str, typer.Argument(help="The id that `list` shows.")]) -> None:
    """Write the raw bytes of a dead letter to stdout."""
    from hedgelock_ingest.audit.dead_letters import list_dead_letters

    found = asyncio.run(list_dead_letters(load_for_command(for_people=True)))
    for each in found:
        if each.id == letter_id:
            sys.stdout.buffer.write(each.raw)
            sys.stdout.buffer.flush()
            return
    raise _no_letter(letter_id)


@letters_app.command("replay")
def letters_replay(
    feed: _FeedOption = None,
    letter_id: Annotated[str | None, typer.Option("--id", help="Only this dead letter.")] = None,
) -> None:
    """
    Translate dead letters by the current rules, and publish the records once, with the source `dead-letter`.

    Exit code 1: some still cannot be translated or published.
    """
    from hedgelock_ingest.audit.dead_letters import list_dead_letters, replay_letters

    settings = load_for_command(for_people=True)
    chosen = [each for each in asyncio.run(list_dead_letters(settings, feed=feed)) if letter_id in (None, each.id)]
    if letter_id is not None and not chosen:
        raise _no_letter(letter_id)
    done = asyncio.run(replay_letters(settings, chosen))
    print(f"{done.letters} letters replayed, {done.records} records published, {len(done.still_failing)} still failing")
    for each, reason in done.still_failing:
        print(f"  {each.id}  {each.feed}  {reason}")
    raise typer.Exit(1 if done.still_failing else 0)


def _no_letter(letter_id: str) -> IngestError:
    return IngestError(f'no dead letter {letter_id}; "hedgelock-ingest dead-letters list" shows the existing ones')


def _none_of(what: str, feed: str | None, recorded: int, further: str = "") -> str:
    """Return the text for a selection that is empty although there are records."""
    of_feed = "" if feed is None else f' of a feed whose name begins with "{feed}"'
    others = "1 other is" if recorded == 1 else f"{recorded} others are"
    return f"No {what}{of_feed}{further}; {others} recorded."


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f'"{text}" is not a time, expected one such as 2026-11-21T08:00:00Z') from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
