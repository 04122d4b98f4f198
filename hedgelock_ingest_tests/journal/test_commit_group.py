"""Groups: a row is verified before its frames are used."""

import pytest

from hedgelock_ingest.errors import JournalDamaged
from hedgelock_ingest.journal.commit_group import decode_group, encode_group
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest_tests.journal.builders import frames


def test_group_decodes_to_what_was_encoded() -> None:
    """Every frame, in order."""
    written = frames(1, 20)

    assert decode_group(encode_group(written, 7, 6_000)) == written


@pytest.mark.parametrize("trace", [b"", bytes(15), bytes(17)])
def test_trace_of_another_length_is_damage(trace: bytes) -> None:
    """Header encoding relies on 16 bytes per trace id; another length would corrupt a complete batch."""
    group = encode_group([*frames(1, 2), Frame("linear-a", 1, trace, b"{}")], 1, 600)

    with pytest.raises(JournalDamaged, match="cannot be decoded"):
        decode_group(group)
