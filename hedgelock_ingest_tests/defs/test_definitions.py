"""The code location loads with any settings, and defines assets, jobs and resources."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from hedgelock_ingest.defs import assembly
from hedgelock_ingest.defs.resources import BybitResource, IngestResource, KafkaResource
from hedgelock_ingest.defs.topics.assets import feed_key, topic_key, topics_of
from hedgelock_ingest.defs.topics.columns import column_schema
from hedgelock_ingest.models.topics import CONTRACTS, Topic

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _only_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "collector.yaml").write_text("bybit_testnet: true\n")
    monkeypatch.setenv("HEDGELOCK_CONFIG", str(tmp_path / "collector.yaml"))


def test_definitions_are_valid_and_use_no_deprecated_or_beta_features() -> None:
    """Features that Dagster calls deprecated, superseded, beta or preview would print warnings."""
    program = (
        "import warnings; from dagster_shared.utils import warnings as of_dagster\n"
        "for category in (DeprecationWarning, of_dagster.SupersessionWarning, of_dagster.BetaWarning,"
        " of_dagster.PreviewWarning): warnings.simplefilter('error', category)\n"
        "import dagster as dg; from hedgelock_ingest import definitions\n"
        "dg.Definitions.validate_loadable(definitions.defs())"
    )
    # In a new interpreter: a warning at import is issued once, and may have been issued already.
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_wrong_settings_load_and_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator with a wrong setting still sees the location, and the problem in it."""
    monkeypatch.setenv("BYBIT_LINES", "3")
    monkeypatch.setenv("STREAM_SHARDS", "Not A Name")
    loaded = assembly.assemble()
    dg.Definitions.validate_loadable(loaded)
    reported = str((loaded.metadata or {})["settings"])
    assert "BYBIT_LINES" in reported
    assert "STREAM_SHARDS" in reported


def test_wrong_settings_fail_a_run_with_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator reads the problem in the run's failure."""
    monkeypatch.setenv("BYBIT_LINES", "3")
    with pytest.raises(dg.Failure, match="BYBIT_LINES"):
        an_ingest().settings()


def test_each_shard_is_a_partition_of_the_stream(tmp_path: Path) -> None:
    """Shards are scaled out by a list of names."""
    shards = {"spot": {"bybit_linear_symbols": ""}, "linear": {"bybit_spot_symbols": ""}}
    (tmp_path / "collector.yaml").write_text(yaml.safe_dump({"stream_shards": "spot,linear", "shards": shards}))
    job = assembly.assemble().resolve_job_def("stream")
    assert job.partitions_def is not None
    assert list(job.partitions_def.get_partition_keys()) == ["spot", "linear"]


def test_every_job_but_the_stream_has_a_time_limit() -> None:
    """Runs of a lost machine never end by themselves, and would occupy slots of other runs."""
    jobs = [job for job in assembly.assemble().jobs or () if job.name != "stream"]
    assert len(jobs) >= 5
    endless = [job.name for job in jobs if int((job.tags or {}).get("dagster/max_runtime", 0)) <= 0]
    assert not endless


def test_resources_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests and deployments override resources in Dagster's usual way."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "one:9092")
    monkeypatch.setenv("OTHER", "two:9092")
    settings = an_ingest(KafkaResource(bootstrap_servers="two:9092"), BybitResource(testnet=False)).settings()
    assert settings.kafka_bootstrap_servers == "two:9092"
    assert not settings.bybit_testnet
    assert an_ingest().settings().kafka_bootstrap_servers == "one:9092"


def test_topics_lead_back_to_their_feeds() -> None:
    """Lineage leads from each topic to its sources."""
    graph = assembly.assemble().resolve_asset_graph()
    parents = graph.get(topic_key(Topic.MARKET_ORDER_BOOKS)).parent_keys
    assert parents == {feed_key("spot", "orderbook.50"), feed_key("linear", "orderbook.50")}
    assert topic_key(Topic.ACCOUNT_RAW) in graph.get(topic_key(Topic.ACCOUNT_UPDATES)).parent_keys
    assert all(graph.get(topic_key(topic)).parent_keys for topic in Topic)


@pytest.mark.parametrize("topic", list(Topic))
def test_columns_are_the_message_s_fields(topic: Topic) -> None:
    """The table in the UI is generated from the model of the records."""
    message = CONTRACTS[topic].message
    columns = column_schema(message).columns
    assert [column.name for column in columns] == [field.alias or name for name, field in message.model_fields.items()]
    assert "any" not in {column.type for column in columns}


def test_shard_reports_the_topics_of_its_feeds_alone() -> None:
    """A shard does not materialise topics that another shard writes."""
    written = topics_of(["linear:orderbook.50.BTCUSDT"], has_private=False)
    assert written == [Topic.MARKET_ORDER_BOOKS, Topic.INGEST_GAPS, Topic.INGEST_DEAD_LETTERS]


def test_location_has_one_name() -> None:
    """Dagster's tools look up a location by the name in either file."""
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    name = workspace["load_from"][0]["python_module"]["location_name"]
    assert f'code_location_name = "{name}"' in (ROOT / "pyproject.toml").read_text()


def an_ingest(kafka: KafkaResource | None = None, bybit: BybitResource | None = None) -> IngestResource:
    return IngestResource(bybit=bybit or BybitResource(), kafka=kafka or KafkaResource())
