"""Formatting of UUIDs."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.translate.formatting import uuid_text, uuid_texts


@given(trace=st.binary(min_size=16, max_size=16), count=st.integers(0, 100))
def test_uuids_are_written_in_their_standard_form(trace: bytes, count: int) -> None:
    """One by one and in a batch, the text equals that of the standard library."""
    traces = [bytes([n]) + trace[1:] for n in range(count)]

    assert uuid_text(trace) == str(uuid.UUID(bytes=trace))
    assert uuid_texts(traces) == [str(uuid.UUID(bytes=each)) for each in traces]
