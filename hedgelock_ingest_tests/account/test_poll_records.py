"""Records of a poll that is made without the stream."""

import json

import msgspec
import pytest

from hedgelock_ingest.account.scheduled_polls import poll_records
from hedgelock_ingest.errors import RestUnavailable
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_messages import Part, Purpose, RestAnswer
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.builders import AT_MS


def a_wallet(*accounts: object) -> RestAnswer:
    """Build the answer to a poll of the wallet."""
    result = msgspec.Raw(json.dumps({"list": accounts}).encode())
    return RestAnswer(Part.WALLET, Purpose.POLL, AT_MS, {"wallet": result})


def test_row_that_cannot_be_decoded_is_a_dead_letter_beside_the_record() -> None:
    """No stream reads the answer, so the poll itself must keep the row."""
    coins = [{"coin": "BTC", "walletBalance": "much"}, {"coin": "ETH", "walletBalance": "3"}]
    record, [letter] = poll_records(Settings(), 1, a_wallet({"coin": coins}), AT_MS * 1_000_000)

    assert list(json.loads(record.value)["balances"]) == ["ETH"]
    assert (letter.topic, letter.trace_id) == (Topic.INGEST_DEAD_LETTERS, record.trace_id)


def test_poll_without_any_account_that_can_be_decoded_fails() -> None:
    """A record without balances would look like an answer."""
    with pytest.raises(RestUnavailable, match="cannot be decoded"):
        poll_records(Settings(), 1, a_wallet({"coin": 7}), AT_MS * 1_000_000)
