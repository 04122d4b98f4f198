"""
The metadata of topics with the operations that the user may apply to them, which aiokafka does not request.

Source: Apache Kafka, KIP-430, and "Protocol", Metadata API, version 8.
"""

from collections.abc import Collection
from typing import NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

_UNKNOWN = -(2**31)
NO_LEADER = -1
_LEADER_AT = 2
_BITS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
"""Source: Apache Kafka, `AclOperation`."""


class FoundTopic(NamedTuple):
    """
    One topic: Kafka's error code, 0 for none; partitions, and how many of them have no leader; least replicas.

    `permitted` are the user's operations, None if they are unknown.
    """

    error_code: int
    partitions: int
    leaderless: int
    replication: int
    permitted: frozenset[str] | None


async def find_topics(admin: AIOKafkaAdminClient, names: Collection[str]) -> dict[str, FoundTopic]:
    """
    Ask any broker about topics, without creating those that are missing.

    Raises:
        aiokafka.errors.KafkaError, OSError: No usable answer.
    """
    client = admin._client
    answer = await client.send(client.get_random_node(), _TopicsRequest(sorted(names)))
    return {topic[1]: _found(*topic) for topic in answer.topics}


def _found(
    error_code: int, _name: str, _is_internal: bool, partitions: list[tuple[int, ...]], operations: int = _UNKNOWN
) -> FoundTopic:
    replicas_at = -3  # before the replicas in sync and those offline
    replication = min((len(each[replicas_at]) for each in partitions), default=0)  # type: ignore[arg-type]
    permitted = (
        None if operations == _UNKNOWN else frozenset(name for name, bit in _BITS.items() if operations >> bit & 1)
    )
    leaderless = sum(each[_LEADER_AT] == NO_LEADER for each in partitions)
    return FoundTopic(error_code, len(partitions), leaderless, replication, permitted)


class TopicsResponse(Response):  # type: ignore[misc]  # aiokafka has no types
    """The answer of Metadata, version 8."""

    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8"))),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _TopicsRequest_v8(RequestStruct):  # type: ignore[misc]  # noqa: N801  # as aiokafka names them
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = TopicsResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _TopicsRequest(Request[MetadataRequest_v5 | _TopicsRequest_v8]):  # type: ignore[misc]
    """The request for topics by name; a broker older than Kafka 2.3 does not report the permitted operations."""

    API_KEY = 3

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def build(self, request_struct_class: type[RequestStruct]) -> RequestStruct:
        if request_struct_class is _TopicsRequest_v8:
            return _TopicsRequest_v8(self._names, False, False, True)
        return request_struct_class(self._names, False)
