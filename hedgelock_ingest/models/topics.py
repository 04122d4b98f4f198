"""The topics: names, message types, keys and retention."""

from dataclasses import dataclass
from enum import StrEnum

from hedgelock_ingest.models.account import AccountRaw, AccountUpdate, Execution, OrderUpdate, PositionChange
from hedgelock_ingest.models.gaps_and_dead_letters import DeadLetter, Gap
from hedgelock_ingest.models.market import Liquidation, MarketData, OrderBookUpdate, Trade
from hedgelock_ingest.models.values import Published

type Offsets = dict[str, dict[int, int]]
"""By topic and partition, the offset after the last of our records that is known to have arrived."""


class Topic(StrEnum):
    """A topic's name in this program; settings may rename it in Kafka."""

    MARKET_DATA = "market-data"
    MARKET_TRADES = "market-trades"
    MARKET_ORDER_BOOKS = "market-order-books"
    MARKET_LIQUIDATIONS = "market-liquidations"
    ACCOUNT_UPDATES = "account-updates"
    POSITION_CHANGES = "position-changes"
    ORDER_UPDATES = "order-updates"
    EXECUTIONS = "executions"
    ACCOUNT_RAW = "account_raw"
    INGEST_GAPS = "ingest-gaps"
    INGEST_DEAD_LETTERS = "ingest-dead-letters"

    @property
    def setting(self) -> str:
        """Return the setting that renames it, in lower case: `kafka_topic_market_data`."""
        return "kafka_topic_" + self.value.replace("-", "_")


@dataclass(frozen=True, slots=True)
class TopicContract:
    """The contract of a topic, which holds one message type; `retention_ms` is how long Kafka keeps a record."""

    message: type[Published]
    key: str
    cleanup: str
    retention_ms: int


_DAY_MS = 86_400_000

STEADY = (Topic.MARKET_DATA, Topic.MARKET_ORDER_BOOKS)
"""Topics whose feeds send continuously, so that silence means trouble."""

CONTRACTS: dict[Topic, TopicContract] = {
    Topic.MARKET_DATA: TopicContract(MarketData, "category:symbol", "delete", 3 * _DAY_MS),
    Topic.MARKET_TRADES: TopicContract(Trade, "category:symbol", "delete", 7 * _DAY_MS),
    Topic.MARKET_ORDER_BOOKS: TopicContract(OrderBookUpdate, "category:symbol", "delete", _DAY_MS),
    Topic.MARKET_LIQUIDATIONS: TopicContract(Liquidation, "category:symbol", "delete", 7 * _DAY_MS),
    Topic.ACCOUNT_UPDATES: TopicContract(AccountUpdate, "account_id", "compact,delete", 30 * _DAY_MS),
    Topic.POSITION_CHANGES: TopicContract(PositionChange, "account_id:category:symbol", "delete", 90 * _DAY_MS),
    Topic.ORDER_UPDATES: TopicContract(OrderUpdate, "account_id:category:symbol", "delete", 90 * _DAY_MS),
    Topic.EXECUTIONS: TopicContract(Execution, "account_id:category:symbol", "delete", 90 * _DAY_MS),
    Topic.ACCOUNT_RAW: TopicContract(AccountRaw, "account_id", "delete", 30 * _DAY_MS),
    Topic.INGEST_GAPS: TopicContract(Gap, "feed", "delete", 90 * _DAY_MS),
    Topic.INGEST_DEAD_LETTERS: TopicContract(DeadLetter, "feed", "delete", 30 * _DAY_MS),
}
