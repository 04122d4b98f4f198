"""JSON Schemas of the published messages and an AsyncAPI document, both generated from the models."""

from typing import Any

from hedgelock_ingest.models.topics import CONTRACTS

HEADERS = {
    "trace-id": "version 4 UUID of the frame that the record was made of",
    "traceparent": "W3C Trace Context",
    "message-type": "name of the message",
    "exchange-ms": "Bybit's time of the frame, milliseconds since 1970",
    "received-ns": "when the frame was read, nanoseconds since 1970",
    "journal-id": "the journal that holds the frame",
    "journal-position": "position of the frame in that journal",
    "record-index": "index among the frame's records in this topic; unique with journal-id and journal-position",
}
"""Descriptions of the headers of every record, by header name."""


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema (draft 2020-12) of each topic's message, by topic."""
    return {
        topic.value: contract.message.model_json_schema(mode="serialization", by_alias=True)
        for topic, contract in CONTRACTS.items()
    }


def asyncapi() -> dict[str, Any]:
    """
    Return one AsyncAPI 3 document of all topics.

    Source: AsyncAPI specification 3.0.0; Kafka bindings 0.5.0.
    """
    schemas = json_schemas()
    headers = {
        "type": "object",
        "properties": {name: {"type": "string", "description": about} for name, about in HEADERS.items()},
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "HedgeLock Ingest",
            "version": "1",
            "description": "Bybit's account, loan and market data in Kafka, exactly once and in order per key.",
        },
        "defaultContentType": "application/json",
        "channels": {
            topic.value: {
                "address": topic.value,
                "description": f"Key: {contract.key}.",
                "messages": {contract.message.__name__: {"$ref": f"#/components/messages/{contract.message.__name__}"}},
                "bindings": {
                    "kafka": {
                        "bindingVersion": "0.5.0",
                        "topicConfiguration": {
                            "cleanup.policy": contract.cleanup.split(","),
                            "retention.ms": contract.retention_ms,
                        },
                    }
                },
            }
            for topic, contract in CONTRACTS.items()
        },
        "operations": {
            f"publish-{topic.value}": {
                "action": "send",
                "channel": {"$ref": f"#/channels/{topic.value}"},
            }
            for topic in CONTRACTS
        },
        "components": {
            "messages": {
                contract.message.__name__: {
                    "name": contract.message.__name__,
                    "summary": (contract.message.__doc__ or "").strip().splitlines()[0],
                    "headers": headers,
                    "payload": {
                        "schemaFormat": "application/schema+json;version=draft-2020-12",
                        "schema": schemas[topic.value],
                    },
                    "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": "0.5.0"}},
                }
                for topic, contract in CONTRACTS.items()
            }
        },
    }


def documents() -> dict[str, dict[str, Any]]:
    """Return all documents by file name: `<topic>.schema.json` for each topic, and `asyncapi.json`."""
    schemas = {f"{topic}.schema.json": schema for topic, schema in json_schemas().items()}
    return {**schemas, "asyncapi.json": asyncapi()}
