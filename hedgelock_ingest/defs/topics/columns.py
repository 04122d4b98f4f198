"""The columns of a topic's message, as Dagster shows them; made from the models, so they cannot differ."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from hedgelock_ingest.models.schemas import HEADERS
from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.models.values import Published

FIELDS = "fields and headers"
"""The metadata under which a topic's page stands."""


def column_schema(message: type[Published]) -> dg.TableSchema:
    """List a message's fields in their order, with their JSON types."""
    schema = message.model_json_schema(mode="serialization", by_alias=True)
    return dg.TableSchema(columns=[_column(name, shape) for name, shape in schema["properties"].items()])


def _column(name: str, shape: Mapping[str, Any]) -> dg.TableColumn:
    word = _word(shape)
    is_nullable = word.endswith(" or null")
    return dg.TableColumn(
        name,
        word.removesuffix(" or null"),
        description=shape.get("description"),
        constraints=dg.TableColumnConstraints(nullable=is_nullable),
    )


def _word(shape: Mapping[str, Any]) -> str:
    match shape:
        case {"$ref": str(reference)}:
            return reference.rpartition("/")[2]
        case {"anyOf": list(several)}:
            return " or ".join(sorted((_word(each) for each in several), key="null".__eq__))
        case {"const": constant}:
            return str(constant)
        case {"enum": list(several)}:
            return " | ".join(map(str, several))
        case {"format": "decimal"}:
            return "decimal"
        case {"format": "date-time"}:
            return "time"
        case {"format": "uuid"}:
            return "uuid"
        case {"type": "array", "items": Mapping() as items}:
            return f"list of {_word(items)}"
        case {"type": str(word)}:
            return word
    return "any"


def page(topic: Topic) -> dg.MarkdownMetadataValue:
    """Write what a reader of a topic must know; Dagster opens it in a click, wherever the documents are."""
    contract = CONTRACTS[topic]
    schema = contract.message.model_json_schema(mode="serialization", by_alias=True)
    headers = "\n".join(f"| `{name}` | {about} |" for name, about in HEADERS.items())
    parts = [
        f"# {topic.value}",
        f"`{contract.message.__name__}`, key `{contract.key}`, cleanup {contract.cleanup}; renamed by "
        f"`{topic.setting.upper()}`.",
        *_object(schema),
        *(part for name, shape in schema.get("$defs", {}).items() for part in (f"## {name}", *_object(shape))),
        f"## Headers\n\n| header | what it is |\n|---|---|\n{headers}",
        f"With an example: {docs_anchor(topic)}; as JSON Schema: `hedgelock-ingest schemas`.",
    ]
    return dg.MetadataValue.md("\n\n".join(parts))


def docs_anchor(topic: Topic) -> str:
    """Give the place in the documents that describes a topic."""
    return f"docs/topics.md#{topic.value}"


def _object(shape: Mapping[str, Any]) -> Iterator[str]:
    yield shape.get("description", "")
    if fields := shape.get("properties"):
        rows = [f"| `{name}` | {_word(each).replace('|', 'or')} |" for name, each in fields.items()]
        yield "\n".join(["| field | type |", "|---|---|", *rows])
