"""
Write docs/topics.md from the models, with examples that the translator makes from recorded frames.

`--check` writes nothing, and exits with 1 if the page is out of date.
"""

import hashlib
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from hedgelock_ingest.models.topics import CONTRACTS, Topic, TopicContract
from hedgelock_ingest.protocol.frames import NOTE, REST, Frame
from hedgelock_ingest.protocol.rest_messages import Part, Purpose, RestAnswer
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.kafka.batches import headers_of

PAGE = Path(__file__).with_name("topics.md")
SAMPLES = PAGE.parents[1] / "hedgelock_ingest_tests" / "samples"
JOURNAL_ID = b"5f0c3a1e9d7b4c2f8a6e1b3d5c7f9a02"
_LEVELS_SHOWN = 2
_MAX_LINE = 100
_PREFERRED = {
    Topic.MARKET_ORDER_BOOKS: b'"type":"delta"',
    Topic.ACCOUNT_RAW: b'"origin":"websocket:wallet"',
    Topic.ACCOUNT_UPDATES: b'"positions":[{',
}
_DAY_MS = 86_400_000
_POLLED_MS = 1_737_725_790_000

# Source: Bybit V5, WebSocket Stream, Public, All Liquidation, "Response Example".
_LIQUIDATION = (
    '{"topic":"allLiquidation.ROSEUSDT","type":"snapshot","ts":1739502303204,'
    '"data":[{"T":1739502302929,"s":"ROSEUSDT","S":"Sell","v":"20000","p":"0.04499"}]}'
)
# Source: Bybit V5, Crypto Loan (New), Get Crypto Loan Position and Get Flexible Loans, "Response Example".
_COLLATERAL = (
    '{"borrowList":[{"fixedTotalDebt":"0","fixedTotalDebtUSD":"0","flexibleHourlyInterestRate":"0.0000001361462",'
    '"flexibleTotalDebt":"0.08800022","flexibleTotalDebtUSD":"9355.37","loanCurrency":"BTC"}],'
    '"collateralList":[{"amount":"0.12","amountUSD":"9930.11","currency":"BTC"}],"ltv":"0.524344","supplyList":[],'
    '"totalCollateral":"18381.41","totalDebt":"9638.17","totalSupply":"800.13"}'
)
_LOANS = (
    '{"list":[{"hourlyInterestRate":"0.0000018847396","loanCurrency":"ETH","totalDebt":"0.10000019",'
    '"unpaidAmount":"0.1","unpaidInterest":""}]}'
)
# Source: Bybit V5, Account, Get Transferable Amount (Unified), with an amount that fits the recorded wallet.
_TRANSFERABLE = '{"availableWithdrawal":"837.60764370","availableWithdrawalMap":{"USDT":"837.60764370"}}'
_CUT_OFF = '{"topic":"publicTrade.BTCUSDT","ts":17034307453'

_HEAD = """\
<!-- Written by docs/generate.py from the models: change those, then run "make docs". -->
# Topics

One topic holds one type of message, unless `KAFKA_ROUTES` sends copies of others to it: then `message-type` in the
headers distinguishes them. This page is for developers of consumers.

**Values** are JSON objects. Every value has every field of its table; unknown values are `null`.

- A *decimal* is a string with exactly Bybit's digits: `"0.00008055"`. Parse it as a decimal, never as a float.
- A *time* is a string in UTC with milliseconds: `"2024-05-15T04:52:42.463Z"`.
- Fields may be added under the same `schema_version`; none is removed, renamed or given another meaning.
- `trace_id` identifies a frame or an answer of REST: all records made from it share it, in all topics.
- `source` is the origin of the data: `websocket`; `rest` for a poll; `rest-backfill` for data from a gap that REST
  returned, such as the state after a reconnect;
  `dead-letter` for a frame that could be decoded later; `collector` for reports about the stream itself and for
  `account_raw`.
- Records of a gap that REST filled come later than their place in the order, with `healed: true`; records from a dead
  letter come later, too.

**Order** holds per key: records of one key are in one partition, in Bybit's order. The partition is Kafka's default
for the key (murmur2), so other producers and Kafka Streams agree with it.

**Once**: each record is in its topic once, also after restarts of this service and of Kafka. Its name is
(`journal-id`, `journal-position`, `record-index`) in the headers, unique in a topic. A copy in a further topic
([settings](settings.md#routes)) has the same key, value and headers but `record-index`, and holds the same promises.

**Gaps** are in `ingest-gaps`, frames that could not be decoded are in `ingest-dead-letters`. A record that no topic
accepts, such as one larger than the topic allows, is kept in the journal.

`hedgelock-ingest schemas` prints the JSON Schema of each topic's message, and an AsyncAPI 3 document of all topics.

Names, partitions and compression are settings (`KAFKA_TOPIC_...`, [settings](settings.md)). A missing topic is created
as listed here; one that exists is never altered, and `hedgelock-ingest topics` shows how it differs.
`hedgelock-ingest tail TOPIC` shows the last records. Terms such as feed and position are defined in
[Words](ARCHITECTURE.md#words).
"""

_HEADERS_ABOUT = {
    "trace-id": "as `trace_id` in the value",
    "traceparent": "W3C Trace Context of the frame, for tracing tools",
    "message-type": "the model's name",
    "exchange-ms": "Bybit's time of the frame, milliseconds since 1970",
    "received-ns": "our wall clock when the frame was read, nanoseconds since 1970; Kafka's timestamp is the same",
    "journal-id": "the journal that holds the frame; one per shard",
    "journal-position": "the frame's number in that journal: 1, 2, 3, ...; for a poll scheduled by Dagster, in "
    "`account_raw`, its slot in milliseconds since 1970, times three, plus 0 (collateral), 1 (loans) or 2 (wallet)",
    "record-index": "the record's number among those of the same frame in the same topic, from 0; copies of another "
    "topic's records begin at a million times its row above: `7000000` for `OrderUpdate`",
}


def page() -> str:
    """Return the complete page."""
    examples = _examples()
    parts = [_HEAD, _overview(), _headers(examples[Topic.MARKET_TRADES])]
    parts += [_section(topic, contract, examples.get(topic)) for topic, contract in CONTRACTS.items()]
    return "\n".join([*parts, *_shared_parts()])


def _examples() -> dict[Topic, Record]:
    """Find one record of each topic: the first one, or the last one with more content."""
    examples: dict[Topic, Record] = {}
    translator = Translator(state_interval_ms=0)
    for position, frame in enumerate(_frames(), 1):
        for record in translator.translate(position, frame):
            is_preferred = record.topic in _PREFERRED and _PREFERRED[record.topic] in record.value
            if is_preferred or record.topic not in examples:
                examples[record.topic] = record
    return examples


def _frames() -> Iterator[Frame]:
    trades = [line for line in _sample_lines("spot_public") if '"publicTrade.' in line]
    lost_ms = json.loads(trades[0])["ts"] + 400
    down = {
        "note": "down",
        "at_ms": lost_ms,
        "channels": ["spot:publicTrade.BTCUSDT"],
        "reason": "no live line: connection_lost",
    }
    yield _frame("spot-a", _CUT_OFF, 1703430744000)
    yield from (_frame("spot-a", line) for line in _sample_lines("spot_public") if line not in trades)
    yield _frame("spot-a", trades[0])
    yield _frame(NOTE, json.dumps(down), lost_ms)
    yield from (_frame("spot-b", line) for line in trades[1:])
    yield from (_frame("linear-a", line) for line in _sample_lines("linear_public"))
    yield _frame("linear-a", _LIQUIDATION)
    private = [_frame("private-a", line) for line in _sample_lines("private")]
    yield from (frame for frame in private if frame.received_ns < _POLLED_MS * 1_000_000)
    yield _answer(Part.POSITIONS, {"linear": '{"list":[]}'})
    # A row of the wallet is the same in the stream and in REST.
    wallet = [line for line in _sample_lines("private") if '"topic":"wallet"' in line][-1]
    yield _answer(
        Part.WALLET, {"wallet": json.dumps({"list": json.loads(wallet)["data"]}), "withdrawal": _TRANSFERABLE}
    )
    yield _answer(Part.LOANS, {"flexible": _LOANS})
    yield _answer(Part.COLLATERAL, {"position": _COLLATERAL})
    yield from (frame for frame in private if frame.received_ns >= _POLLED_MS * 1_000_000)


def _sample_lines(name: str) -> list[str]:
    lines = (SAMPLES / f"{name}.jsonl").read_text().splitlines()
    return [line for line in lines if "topic" in json.loads(line)]


def _answer(part: Part, results: dict[str, str]) -> Frame:
    raw = {name: msgspec.Raw(result.encode()) for name, result in results.items()}
    answer = RestAnswer(part, Purpose.POLL, _POLLED_MS, raw)
    return _frame(f"{REST}-{part}", msgspec.json.encode(answer).decode(), _POLLED_MS)


def _frame(origin: str, raw: str, at_ms: int | None = None) -> Frame:
    received_ms = (_time_in(json.loads(raw)) if at_ms is None else at_ms) + 41
    digest = hashlib.sha256(raw.encode()).digest()
    return Frame(origin, received_ms * 1_000_000, UUID(bytes=digest[:16], version=4).bytes, raw.encode())


def _time_in(envelope: dict[str, int]) -> int:
    return envelope["ts"] if "ts" in envelope else envelope["creationTime"]


def _overview() -> str:
    lines = ["## All topics", "", "| topic | message | key | cleanup | kept |", "|---|---|---|---|---|"]
    lines += [
        f"| [`{topic}`](#{topic}) | `{contract.message.__name__}` | `{contract.key}` | {contract.cleanup} | "
        f"{_days(contract)} |"
        for topic, contract in CONTRACTS.items()
    ]
    return "\n".join([*lines, ""])


def _headers(example: Record) -> str:
    lines = [
        "## Headers of every record",
        "",
        "All are text.",
        "",
        "| header | example | meaning |",
        "|---|---|---|",
    ]
    lines += [
        f"| `{name}` | `{value.decode()}` | {_HEADERS_ABOUT[name]} |" for name, value in headers_of(example, JOURNAL_ID)
    ]
    return "\n".join([*lines, ""])


def _section(topic: Topic, contract: TopicContract, example: Record | None) -> str:
    name = contract.message.__name__
    lines = [
        f"## {topic}",
        "",
        f"`{name}`, key `{contract.key}`, cleanup {contract.cleanup}, kept {_days(contract)}; "
        f"renamed by `{topic.setting.upper()}`.",
        "",
        inspect.getdoc(contract.message) or "",
        "",
        *_fields(contract.message.model_json_schema()),
        "",
    ]
    if example is not None:
        lines += [*_example(contract, example), ""]
    return "\n".join(lines)


def _shared_parts() -> Iterator[str]:
    """Describe each object that occurs inside values, once."""
    parts: dict[str, dict[str, Any]] = {}
    for contract in CONTRACTS.values():
        parts |= contract.message.model_json_schema().get("$defs", {})
    if parts:
        yield "## Objects inside values\n"
    for name, schema in parts.items():
        yield "\n".join([f"### {name}", "", schema.get("description", ""), "", *_fields(schema), ""])


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    yield "| field | type |"
    yield "|---|---|"
    for name, field in schema["properties"].items():
        about = field.get("description")
        yield f"| `{name}` | {_type(field)}{f': {about}' if about else ''} |"


def _type(field: dict[str, Any]) -> str:
    """Describe a JSON schema in words; raises LookupError for one that is not known here."""
    match field:
        case {"$ref": str(reference)}:
            name = reference.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"const": value}:
            return f"`{json.dumps(value)}`"
        case {"enum": [*values]}:
            return " or ".join(f"`{json.dumps(value)}`" for value in values)
        case {"format": "decimal" | "uuid" | "base64" as kind}:
            return {"decimal": "decimal", "uuid": "UUID, version 4", "base64": "bytes in base64"}[kind]
        case {"format": "date-time"}:
            return "time"
        case {"anyOf": [*choices]}:
            return " or ".join(dict.fromkeys(_type(choice) for choice in choices))
        case {"type": "array", "prefixItems": [*items]}:
            return f"[{', '.join(_type(item) for item in items)}]"
        case {"type": "array", "items": dict(item)}:
            return f"list of {_grouped(_type(item))}"
        case {"type": "object", "additionalProperties": dict(value)}:
            return f"object, each value {_grouped(_type(value))}"
        case {"type": str(kind)}:
            return {"string": "text", "integer": "whole number", "boolean": "true or false", "null": "null"}[kind]
    raise LookupError(f"unknown schema {field}")


def _grouped(words: str) -> str:
    return f"({words})" if " or " in words or words.startswith("object") else words


def _example(contract: TopicContract, example: Record) -> Iterator[str]:
    value = json.loads(example.value)
    contract.message.model_validate_json(example.value)
    expected = {field.alias or name for name, field in contract.message.model_fields.items()}
    if set(value) != expected:
        raise LookupError(f"{contract.message.__name__}: the value has {sorted(value)}, the model {sorted(expected)}")
    is_shortened = False
    for name in ("bids", "asks"):
        is_shortened |= len(value.get(name, ())) > _LEVELS_SHOWN
        value |= {name: value[name][:_LEVELS_SHOWN]} if name in value else {}
    yield f"Key `{example.key.decode()}`{', lists shortened' if is_shortened else ''}:"
    yield ""
    yield "```json"
    yield "{"
    yield ",\n".join(f"  {json.dumps(name)}: {_in_lines(each)}" for name, each in value.items())
    yield "}"
    yield "```"


def _in_lines(value: object) -> str:
    line = json.dumps(value)
    return line if len(line) <= _MAX_LINE else json.dumps(value, indent=2).replace("\n", "\n  ")


def _days(contract: TopicContract) -> str:
    days = contract.retention_ms // _DAY_MS
    return "unlimited" if contract.retention_ms < 0 else "1 day" if days == 1 else f"{days} days"


def main() -> int:
    """Write the page, or compare it with `--check`."""
    if "--check" in sys.argv[1:]:
        is_current = PAGE.read_text() == page()
        print(f"{PAGE.name} is up to date" if is_current else f'{PAGE.name} is out of date; run "make docs"')
        return 0 if is_current else 1
    PAGE.write_text(page())
    print(f"docs/{PAGE.name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
