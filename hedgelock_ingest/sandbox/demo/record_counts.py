"""Read the topics back, and count records that are duplicated, out of order or missing."""

from collections import Counter
from collections.abc import Iterable

import msgspec

from hedgelock_ingest.kafka.consumer import ConsumedRecord
from hedgelock_ingest.kafka.headers import RecordName


class _Update(msgspec.Struct):
    type: str
    depth: int
    update_id: int
    continuous: bool


class _Price(msgspec.Struct):
    price: str | None


class AccountView(msgspec.Struct):
    """The displayed fields of the last `AccountUpdate`; the amounts are USD."""

    ltv: str
    loan_amount: str
    collateral_value: str
    balances: dict[str, str]
    positions: list[dict[str, object]]


_decode_account = msgspec.json.Decoder(AccountView).decode
_decode_update = msgspec.json.Decoder(_Update).decode
_decode_price = msgspec.json.Decoder(_Price).decode


class RecordCounts:
    """
    Counts over all records of the topics, from their beginning.

    In a partition the names of one journal's records only rise: a record whose name does not is duplicated or out of
    order. The updates of an order book are numbered consecutively: an update that does not follow its predecessor,
    and is not marked as discontinuous, shows that one is missing.
    """

    def __init__(self, *, books: str, prices: str, accounts: str) -> None:
        """Take the names of three topics whose values are decoded: order books, market data and accounts."""
        self.records: Counter[str] = Counter()
        self.duplicated = 0
        self.out_of_order = 0
        self.missing_updates = 0
        self.prices: dict[str, str] = {}
        self.account: AccountView | None = None
        self._books = books
        self._prices = prices
        self._accounts = accounts
        self._last: dict[tuple[str, int, bytes], RecordName] = {}
        self._update_ids: dict[tuple[bytes | None, int], int] = {}

    @property
    def total(self) -> int:
        """The number of records read."""
        return sum(self.records.values())

    @property
    def is_flawless(self) -> bool:
        """Whether no record is duplicated, out of order or missing."""
        return not (self.duplicated or self.out_of_order or self.missing_updates)

    def take(self, records: Iterable[ConsumedRecord]) -> None:
        """Count and check a group of records."""
        for record in records:
            self.records[record.topic] += 1
            self._check_name(record)
            if record.value is None:
                continue
            if record.topic == self._books:
                self._check_update(record.key, _decode_update(record.value))
            elif record.topic == self._prices and record.key is not None:
                self.prices[record.key.decode()] = _decode_price(record.value).price or "none"
            elif record.topic == self._accounts:
                self.account = _decode_account(record.value)

    def _check_name(self, record: ConsumedRecord) -> None:
        if record.name is None or record.journal_id is None:
            return
        place = record.topic, record.partition, record.journal_id
        last = self._last.get(place)
        if last is not None and record.name == last:
            self.duplicated += 1
        elif last is not None and record.name < last:
            self.out_of_order += 1
        else:
            self._last[place] = record.name

    def _check_update(self, key: bytes | None, update: _Update) -> None:
        book = key, update.depth
        if update.type == "state":
            return
        last = self._update_ids.get(book)
        if update.type == "delta" and update.continuous and last is not None and update.update_id != last + 1:
            self.missing_updates += 1
        self._update_ids[book] = update.update_id
