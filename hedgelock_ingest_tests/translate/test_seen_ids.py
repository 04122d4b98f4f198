"""Names of trades are the same after a save, whatever their form."""

import uuid
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.translate.seen_ids import MIN_REMEMBERED, SeenIds
from hedgelock_ingest.translate.state import State


def saved_and_loaded(remembered: SeenIds) -> tuple[bytes, SeenIds]:
    """Save and load as the saved state does; return the bytes, too."""
    state = msgspec.msgpack.encode({"prints": {"feed": remembered.save()}})
    return state, SeenIds(msgspec.msgpack.decode(state, type=State).seen_ids["feed"])


@pytest.mark.parametrize(
    "name",
    [
        lambda number: str(uuid.UUID(int=number)),
        lambda number: str(uuid.UUID(int=2**127 + number)).upper(),
        lambda number: f"{number:016}",
        lambda number: f"{number:032}",
        lambda number: f"{number:032x}"[::-1] + "----",
        lambda number: f"{number:030x}  ",
        lambda number: f"trade {number}",
        lambda number: str(uuid.UUID(int=number)) if number % 300 else f"{number}",
    ],
    ids=["uuid", "upper-case", "number", "long-number", "dashes-elsewhere", "spaces", "text", "mixed"],
)
def test_names_are_unchanged_after_a_save(name: Callable[[int], str]) -> None:
    """A changed name would let a trade be published twice."""
    names = [name(number) for number in range(MIN_REMEMBERED + 100)]

    _, loaded = saved_and_loaded(SeenIds([names]))

    assert loaded.known == set(names)


@given(
    st.lists(
        st.one_of(st.uuids().map(str), st.text("0123456789abcdefABCDEF -", min_size=32, max_size=36)),
        unique=True,
        min_size=40,
        max_size=100,
    )
)
def test_names_of_any_form_are_unchanged_after_a_save(names: list[str]) -> None:
    """Bybit guarantees no form of trade ids."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hedgelock_ingest.translate.seen_ids._CHUNK_SIZE", 40)
        assert saved_and_loaded(SeenIds([names]))[1].known == set(names)


def test_saved_uuids_take_less_than_half_of_their_text() -> None:
    """The state is written every few seconds, and commits wait for the write."""
    names = [str(uuid.UUID(int=number)) for number in range(MIN_REMEMBERED)]

    state, _ = saved_and_loaded(SeenIds([names]))

    assert len(state) < len("".join(names)) / 2
