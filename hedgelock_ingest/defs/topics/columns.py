"""The columns of a topic's message as Dagster shows them, generated from the models."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from hedgelock_ingest.models.schemas import HEADERS
from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.models.values import Published

FIELDS = "fields and headers"
"""The metadata key of a topic's page."""


def column_schema(message: type[Published]) -> dg.TableSchema:
    """Return a message's fields in order, with their JSON types."""
    schema = message.model_json_schema(mode="serialization", by_alias=True)
    return dg.TableSchema(columns=[_column(name, shape) for name, shape in schema["properties"].items()])


def _column(name: str, shape: Mapping[str, Any]) -> dg.TableColumn:
    type_name = _type_name(shape)
    is_nullable = type_name.endswith(" or null")
    return dg.TableColumn(
        name,
        type_name.removesuffix(" or null"),
        description=shape.get("description"),
        constraints=dg.TableColumnConstraints(nullable=is_nullable),
    )


def _type_name(shape: Mapping[str, Any]) -> str:
    match shape:
        case {"$ref": str(reference)}:
            return reference.rpartition("/")[2]
        case {"anyOf": list(options)}:
            return " or ".join(sorted((_type_name(each) for each in options), key="null".__eq__))
        case {"const": constant}:
            return str(constant)
        case {"enum": list(options)}:
            return " | ".join(map(str, options))
        case {"format": "decimal"}:
            return "decimal"
        case {"format": "date-time"}:
            return "time"
        case {"format": "uuid"}:
            return "uuid"
        case {"type": "array", "items": Mapping() as items}:
            return f"list of {_type_name(items)}"
        case {"type": str(type_name)}:
            return type_name
    return "any"


def page(topic: Topic) -> dg.MarkdownMetadataValue:
    """Return the reference page of a topic as Markdown, which Dagster shows without access to the docs."""
    contract = CONTRACTS[topic]
    schema = contract.message.model_json_schema(mode="serialization", by_alias=True)
    headers = "\n".join(f"| `{name}` | {about} |" for name, about in HEADERS.items())
    parts = [
        f"# {topic.value}",
        f"`{contract.message.__name__}`, key `{contract.key}`, cleanup {contract.cleanup}; renamed by "
        f"`{topic.setting.upper()}`.",
        *_object(schema),
        *(part for name, shape in schema.get("$defs", {}).items() for part in (f"## {name}", *_object(shape))),
        f"## Headers\n\n| header | meaning |\n|---|---|\n{headers}",
        f"With an example: {docs_anchor(topic)}; as JSON Schema: `hedgelock-ingest schemas`.",
    ]
    return dg.MetadataValue.md("\n\n".join(parts))


def docs_anchor(topic: Topic) -> str:
    """Return the link to a topic's section in the docs."""
    return f"docs/topics.md#{topic.value}"


def _object(shape: Mapping[str, Any]) -> Iterator[str]:
    yield shape.get("description", "")
    if fields := shape.get("properties"):
        rows = [f"| `{name}` | {_type_name(each).replace('|', 'or')} |" for name, each in fields.items()]
        yield "\n".join(["| field | type |", "|---|---|", *rows])
