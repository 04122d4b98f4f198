"""Parameters of account requests: limits, time windows, and cursors that arrive percent-encoded."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from hedgelock_ingest.sandbox.exchange.rest.envelope import PARAMETER_ERROR, RequestRefused

WEEK_MS = 7 * 86_400_000


def limited(query: Mapping[str, str], *, default: int, most: int) -> int:
    """Read `limit`, capped at `most`."""
    text = query.get("limit") or str(default)
    if not text.isdigit() or int(text) < 1:
        raise RequestRefused(PARAMETER_ERROR, "params error: Limit is invalid")
    return min(int(text), most)


def window(query: Mapping[str, str], now_ms: int) -> tuple[int, int]:
    """
    Read `startTime` and `endTime`, at most seven days apart; one of them means seven days from or up to it.

    Source: Bybit V5, Get Trade History.
    """
    start, end = (_time(query, name) for name in ("startTime", "endTime"))
    if start is None:
        end = now_ms if end is None else end
        return end - WEEK_MS, end
    end = start + WEEK_MS if end is None else end
    if end < start:
        raise RequestRefused(PARAMETER_ERROR, "The startTime must not be greater than the endTime.")
    if end - start > WEEK_MS:
        raise RequestRefused(PARAMETER_ERROR, "The time range between startTime and endTime cannot exceed 7 days.")
    return start, end


def page[Row](
    rows: Sequence[Row],
    query: Mapping[str, str],
    *,
    limit: int,
    number: Callable[[Row], int],
    write: Callable[[int], str] = str,
) -> tuple[list[Row], str]:
    """
    Return one page of rows, which are newest first, and the cursor of the next.

    The cursor names the last row of the page, so that later rows shift nothing. As with Bybit the page of the last
    rows has a cursor, too; the page after it is empty and has none.

    Args:
        number: Returns the number of a row; newer rows have greater numbers.
        write: Formats a cursor; its first run of digits must be the number.
    """
    last = _cursor(query.get("cursor", ""))
    left = [row for row in rows if last is None or number(row) < last]
    found = left[:limit]
    return found, quote(write(number(found[-1])), safe="") if found else ""


def required(query: Mapping[str, str], name: str) -> str:
    """Read a required parameter."""
    if not query.get(name):
        raise RequestRefused(PARAMETER_ERROR, f"params error: {name} is required")
    return query[name]


def matching(rows: Sequence[dict[str, Any]], query: Mapping[str, str], **fields: str) -> list[dict[str, Any]]:
    """Return the rows, newest first, whose fields equal the parameters given: `parameter="field"`."""
    chosen = [
        row for row in rows if all(str(row[field]) == query[name] for name, field in fields.items() if query.get(name))
    ]
    return chosen[::-1]


def _cursor(text: str) -> int | None:
    if not text:
        return None
    digits = text.partition(":")[0].rpartition("=")[2]
    if "%" in text or not digits.isdigit():
        # The client encoded it a second time.
        raise RequestRefused(PARAMETER_ERROR, "params error: cursor is invalid")
    return int(digits)


def _time(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if not text:
        return None
    if not text.isdigit():
        raise RequestRefused(PARAMETER_ERROR, f"params error: {name} is invalid")
    return int(text)
