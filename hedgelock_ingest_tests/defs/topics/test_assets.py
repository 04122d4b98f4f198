"""Dagster's catalogue shows description, owner, freshness policy and checks of every asset."""

import re
from pathlib import Path

import dagster as dg
import pytest

from hedgelock_ingest.defs import assembly
from hedgelock_ingest.defs.polls.window import POLLED_PARTS
from hedgelock_ingest.defs.topics.assets import BACKFILLED, feed_key, polled_key, topic_key
from hedgelock_ingest.defs.topics.columns import FIELDS
from hedgelock_ingest.models.schemas import HEADERS
from hedgelock_ingest.models.topics import Topic

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    """All definitions, with a key."""
    file = tmp_path_factory.mktemp("settings") / "collector.yaml"
    file.write_text("bybit_testnet: true\n")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"HEDGELOCK_CONFIG": str(file), "BYBIT_API_KEY": "k", "BYBIT_API_SECRET": "s"}.items():
            patch.setenv(name, value)
        return assembly.assemble()


def specs(loaded: dg.Definitions) -> dict[dg.AssetKey, dg.AssetSpec]:
    return {spec.key: spec for spec in loaded.resolve_all_asset_specs()}


def test_each_asset_has_description_owner_kind_and_group(loaded: dg.Definitions) -> None:
    """The catalogue leaves nothing to guess."""
    for key, spec in specs(loaded).items():
        assert spec.description, key
        assert spec.owners, key
        assert spec.kinds, key
        assert spec.group_name not in (None, "default"), key


def test_each_feed_links_to_bybit_s_page(loaded: dg.Definitions) -> None:
    """The meaning of each field is one click away."""
    feeds = [spec for key, spec in specs(loaded).items() if key.path[0] == "bybit"]
    assert len(feeds) > 10
    for spec in feeds:
        assert isinstance(spec.metadata["Bybit"], dg.UrlMetadataValue), spec.key


@pytest.mark.parametrize("topic", list(Topic))
def test_each_topic_is_described_and_must_be_fresh(loaded: dg.Definitions, topic: Topic) -> None:
    """Each topic has columns, a schema, a reference page and a freshness policy."""
    spec = specs(loaded)[topic_key(topic)]
    assert isinstance(spec.freshness_policy, dg.FreshnessPolicy)
    schema = spec.metadata["JSON schema"]
    assert isinstance(schema, dg.JsonMetadataValue)
    assert isinstance(schema.data, dict)
    columns = spec.metadata["dagster/column_schema"]
    assert [column.name for column in columns.columns] == list(schema.data["properties"])
    described = spec.metadata[FIELDS]
    assert isinstance(described, dg.MarkdownMetadataValue)
    page = described.md_str or ""
    assert all(f"| `{name}` |" in page for name in [*schema.data["properties"], *HEADERS])
    assert all(f"## {name}" in page for name in schema.data.get("$defs", {}))
    [place] = re.findall(r"docs/[^;]+", page)
    file, _, anchor = place.partition("#")
    headings = [line for line in (ROOT / file).read_text().splitlines() if line.startswith("#")]
    assert any(anchor in heading for heading in headings), f"no heading in {file} for {anchor}"


@pytest.mark.parametrize("topic", list(Topic))
def test_each_topic_leads_back_to_a_feed(loaded: dg.Definitions, topic: Topic) -> None:
    """An operator can follow any topic back to its source."""
    graph = loaded.resolve_asset_graph()
    seen, left = set(), [topic_key(topic)]
    while left:
        key = left.pop()
        seen.add(key)
        left += [parent for parent in graph.get(key).parent_keys if parent not in seen]
    assert any(key.path[0] == "bybit" for key in seen)


def test_gaps_lead_back_to_private_lines_too(loaded: dg.Definitions) -> None:
    """Gaps of the wallet's stream are recorded in the same topic as gaps of a book."""
    parents = loaded.resolve_asset_graph().get(topic_key(Topic.INGEST_GAPS)).parent_keys
    assert {key.path[1] for key in parents} == {"spot", "linear", "private"}


def test_backfill_stands_between_its_feeds_and_its_topics(loaded: dg.Definitions) -> None:
    """The origin of a healed trade is visible: from the topic to the hours, and on to the feed."""
    hours = loaded.resolve_asset_graph().get(BACKFILLED)
    trades = {feed_key(category, "publicTrade") for category in ("spot", "linear")}
    assert hours.parent_keys == {*trades, feed_key("private", "execution")}
    assert hours.child_keys == {topic_key(Topic.MARKET_TRADES), topic_key(Topic.EXECUTIONS)}


def test_polls_and_audit_must_be_fresh(loaded: dg.Definitions) -> None:
    """The freshness fails when a schedule has stopped."""
    for key in [*(polled_key(part) for part in POLLED_PARTS), dg.AssetKey("audit")]:
        assert isinstance(specs(loaded)[key].freshness_policy, dg.FreshnessPolicy), key


def test_polls_are_retried(loaded: dg.Definitions) -> None:
    """A window may have slots left when Kafka is back; an audit needs no retry, as the next one overlaps it."""
    policy = loaded.resolve_asset_graph().get(polled_key("loans")).assets_def.op.retry_policy
    assert policy is not None
    assert policy.max_retries == 3


def test_checks_describe_what_they_check(loaded: dg.Definitions) -> None:
    """An operator on call reads the description of the check."""
    graph = loaded.resolve_asset_graph()
    descriptions = {check.name: graph.get_check_spec(check).description for check in graph.asset_check_keys}
    assert all(descriptions.values()), descriptions
    assert {"no_holes", "no_dead_letters", "ltv_is_safe", "every_slot_polled", "stream_agrees"} <= descriptions.keys()
    market = [topic.value.replace("-", "_") for topic in Topic if topic.startswith("market-")]
    assert {f"{name}_is_complete" for name in market} <= descriptions.keys()


def test_jobs_schedules_and_sensors_are_described(loaded: dg.Definitions) -> None:
    """Each has a description where it is switched on and off."""
    ours = [*(loaded.jobs or []), *(loaded.schedules or []), *(loaded.sensors or [])]
    assert len(ours) > 8
    for each in ours:
        assert getattr(each, "description", None), each
