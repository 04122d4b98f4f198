"""Conflicts between settings that are each valid alone."""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.settings.model import TOPIC_FIELDS, Settings, Shard


class Conflict(NamedTuple):
    """Settings that contradict each other, and the action to take."""

    fields: frozenset[str]
    problem: str


def conflicts(settings: Settings) -> Iterator[Conflict]:
    """Yield the conflicts between settings that are each valid alone."""
    yield from _key_conflicts(settings)
    yield from _kafka_conflicts(settings)
    if settings.bybit_reconnect_initial_delay > settings.bybit_reconnect_max_delay:
        yield _conflict(
            f"BYBIT_RECONNECT_INITIAL_DELAY is {settings.bybit_reconnect_initial_delay:g}, above "
            f"BYBIT_RECONNECT_MAX_DELAY, {settings.bybit_reconnect_max_delay:g}; "
            "lower the first or raise the second",
            "bybit_reconnect_initial_delay",
            "bybit_reconnect_max_delay",
        )
    shard_count = len(settings.stream_shards)
    if settings.monitoring_port + shard_count > 65536:
        yield _conflict(
            f"MONITORING_PORT is {settings.monitoring_port} and each of {shard_count} shards takes the next port; "
            f"lower it to {65536 - shard_count} or less",
            "monitoring_port",
            "stream_shards",
        )
    yield from _shard_conflicts(settings)


def _key_conflicts(settings: Settings) -> Iterator[Conflict]:
    pair = ("bybit_api_key", "bybit_api_secret")
    for given, missing in (pair, pair[::-1]):
        if getattr(settings, given) is not None and getattr(settings, missing) is None:
            yield _conflict(
                f"{given.upper()} is set but {missing.upper()} is not; set both, "
                "or neither to run the public feeds alone",
                *pair,
            )


def _kafka_conflicts(settings: Settings) -> Iterator[Conflict]:
    if settings.kafka_security_protocol.startswith("SASL"):
        for name in ("kafka_sasl_username", "kafka_sasl_password"):
            if getattr(settings, name) is None:
                yield _conflict(
                    f"KAFKA_SECURITY_PROTOCOL is {settings.kafka_security_protocol} "
                    f"but {name.upper()} is not set; set it, or use PLAINTEXT or SSL",
                    name,
                    "kafka_security_protocol",
                )
    elif settings.kafka_sasl_username is not None:
        yield _conflict(
            f"KAFKA_SASL_USERNAME is set but KAFKA_SECURITY_PROTOCOL is {settings.kafka_security_protocol}, "
            "which does not log in; use SASL_SSL or SASL_PLAINTEXT, or remove the user",
            "kafka_sasl_username",
            "kafka_security_protocol",
        )
    for name in ("kafka_ssl_cafile", "kafka_ssl_certfile", "kafka_ssl_keyfile"):
        if getattr(settings, name) is not None and not settings.kafka_security_protocol.endswith("SSL"):
            yield _conflict(
                f"{name.upper()} is set but KAFKA_SECURITY_PROTOCOL is {settings.kafka_security_protocol}, "
                "which does not encrypt; use SSL or SASL_SSL, or remove the file",
                name,
                "kafka_security_protocol",
            )
    if settings.kafka_ssl_keyfile is not None and settings.kafka_ssl_certfile is None:
        yield _conflict(
            "KAFKA_SSL_KEYFILE is set but KAFKA_SSL_CERTFILE is not; set both or neither",
            "kafka_ssl_keyfile",
            "kafka_ssl_certfile",
        )
    replicas, insync = settings.kafka_topic_replication, settings.kafka_topic_min_insync_replicas
    if replicas is not None and insync is not None and insync > replicas:
        yield _conflict(
            f"KAFKA_TOPIC_MIN_INSYNC_REPLICAS is {insync}, above KAFKA_TOPIC_REPLICATION, {replicas}, so that "
            "Kafka would accept no record; lower the first or raise the second",
            "kafka_topic_replication",
            "kafka_topic_min_insync_replicas",
        )
    yield from _route_conflicts(settings)
    for one, other in combinations(TOPIC_FIELDS, 2):
        if getattr(settings, one) == getattr(settings, other):
            yield _conflict(
                f'{one.upper()} and {other.upper()} are both "{getattr(settings, one)}"; '
                "a topic holds one type of message, so give each its own name",
                one,
                other,
            )


def _route_conflicts(settings: Settings) -> Iterator[Conflict]:
    topic_by_name = {getattr(settings, topic.setting): topic for topic in Topic}
    for topic, names in settings.further_topics.items():
        kind = CONTRACTS[topic].message.__name__
        for name in names:
            target = topic_by_name.get(name)
            if target is topic:
                yield _conflict(
                    f'KAFKA_ROUTES sends {kind} to "{name}", its own topic; remove this route',
                    "kafka_routes",
                    topic.setting,
                )
            elif target is not None and "compact" in CONTRACTS[target].cleanup:
                yield _conflict(
                    f'KAFKA_ROUTES sends {kind} to "{name}", which is compacted: Kafka would keep the last record of '
                    "each key only, whatever its type; choose another topic",
                    "kafka_routes",
                    target.setting,
                )


def _shard_conflicts(settings: Settings) -> Iterator[Conflict]:
    for name in settings.shards:
        if name not in settings.stream_shards:
            yield _conflict(
                f'shards: "{name}" is described but STREAM_SHARDS is {",".join(settings.stream_shards)}; '
                "add it there or remove it",
                "shards",
                "stream_shards",
            )
    shards = [settings.shard(name) for name in settings.stream_shards]
    described = (
        "shards",
        "stream_shards",
        "bybit_spot_symbols",
        "bybit_linear_symbols",
        "bybit_public_feeds",
    )
    for one, other in combinations(shards, 2):
        yield from (_conflict(problem, *described) for problem in _overlap(one, other))
        if one.name.replace("-", "_") == other.name.replace("-", "_"):
            yield _conflict(
                f'STREAM_SHARDS: "{one.name}" and "{other.name}" differ only in - and _, which gives both '
                "the same check name in Dagster; rename one of them",
                "stream_shards",
            )
    for shard in shards:
        private = settings.has_key and shard.carries_private_feeds
        if not private and not any(shard.public_channels()):
            yield _conflict(_nothing_to_do(settings, shard), *described, "bybit_api_key", "bybit_api_secret")


def _overlap(one: Shard, other: Shard) -> Iterator[str]:
    both = sorted(set(one.public_channels()) & set(other.public_channels()))
    if both:
        named = ", ".join(f"{category} {channel}" for category, channel in both[:3])
        more = f" and {len(both) - 3} more" if len(both) > 3 else ""
        yield (
            f'shards "{one.name}" and "{other.name}" both carry {named}{more}, so each record '
            "would come twice; give each shard its own symbols or feeds under shards: in the settings file"
        )
    if one.carries_private_feeds and other.carries_private_feeds:
        yield f'shards "{one.name}" and "{other.name}" both set PRIVATE_FEEDS: true; only one may'


def _nothing_to_do(settings: Settings, shard: Shard) -> str:
    subject = f'shard "{shard.name}"' if len(settings.stream_shards) > 1 else "this service"
    return (
        f"{subject} would have nothing to do: no public feed of any symbol and no key for private ones; "
        "set BYBIT_SPOT_SYMBOLS or BYBIT_LINEAR_SYMBOLS with BYBIT_PUBLIC_FEEDS, "
        "or BYBIT_API_KEY and BYBIT_API_SECRET"
    )


def _conflict(problem: str, *fields: str) -> Conflict:
    return Conflict(frozenset(fields), problem)
