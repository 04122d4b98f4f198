"""The columns of a topic's message, as Dagster shows them; made from the models, so they cannot differ."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.models.values import Published


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


def docs_anchor(topic: Topic) -> str:
    """Give the place in the documents that describes a topic."""
    return f"docs/topics.md#{topic.value}"
