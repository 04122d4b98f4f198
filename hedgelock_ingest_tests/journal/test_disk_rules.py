"""The rules for a journal's disk, for disks of all sizes."""

import pytest

from hedgelock_ingest.journal.disk_rules import KEEP_BYTES, DiskRules

MEBIBYTE = 1024 * 1024
SIZES = [4 * MEBIBYTE, 9 * MEBIBYTE, 64 * MEBIBYTE, 128 * MEBIBYTE, 1 << 40]


@pytest.mark.parametrize("disk_bytes", SIZES)
def test_reserve_holds_a_full_log_and_a_state(disk_bytes: int) -> None:
    """With it the log can be moved and a state be written twice, to the log and to the database."""
    rules = DiskRules(disk_bytes)
    for state_bytes in (0, 50_000, 3 * MEBIBYTE):
        needed_bytes = 2 * state_bytes + (rules.log_bytes + rules.group_bytes if state_bytes < 100_000 else 0)
        assert rules.reserve_bytes(state_bytes) >= needed_bytes


@pytest.mark.parametrize("disk_bytes", SIZES)
def test_most_of_a_disk_is_for_frames_that_wait(disk_bytes: int) -> None:
    """The reserve and the log take the rest."""
    rules = DiskRules(disk_bytes)
    missing_bytes = rules.reserve_bytes(0)
    bound_bytes = rules.bound_bytes(1 << 50, stored_bytes=0, free_bytes=disk_bytes, reserve_missing_bytes=missing_bytes)
    assert 0.6 * disk_bytes < bound_bytes < disk_bytes - missing_bytes


def test_bound_follows_the_free_bytes_and_counts_what_is_stored() -> None:
    """Stored frames either wait, and count against the bound, or can be dropped."""
    rules = DiskRules(100 * MEBIBYTE)

    def bound_bytes(free_bytes: int, *, stored_bytes: int = 0, max_bytes: int = 1 << 40) -> int:
        return rules.bound_bytes(max_bytes, stored_bytes=stored_bytes, free_bytes=free_bytes, reserve_missing_bytes=0)

    assert bound_bytes(0) == 0
    assert bound_bytes(0, stored_bytes=7_000_000) == 7_000_000
    assert bound_bytes(50 * MEBIBYTE) < bound_bytes(51 * MEBIBYTE)
    assert bound_bytes(50 * MEBIBYTE, max_bytes=MEBIBYTE) == MEBIBYTE


def test_history_is_what_is_wanted_a_quarter_of_a_small_disk_and_nothing_without_room() -> None:
    """Frames that wait for Kafka come before frames that Kafka has."""
    assert DiskRules(1 << 40).history_bytes(KEEP_BYTES, is_pressed=False) == KEEP_BYTES
    assert DiskRules(8 * MEBIBYTE).history_bytes(KEEP_BYTES, is_pressed=False) == 2 * MEBIBYTE
    assert DiskRules(8 * MEBIBYTE).history_bytes(1_000, is_pressed=False) == 1_000
    assert DiskRules(1 << 40).history_bytes(KEEP_BYTES, is_pressed=True) == 0
