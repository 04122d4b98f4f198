"""Warnings about accounts whose figures have another meaning."""

import pytest

from hedgelock_ingest.protocol.account_information import AccountInformation


@pytest.mark.parametrize(
    ("status", "mode", "word"),
    [(1, "REGULAR_MARGIN", "not a unified"), (5, "ISOLATED_MARGIN", "isolated")],
)
def test_account_with_a_different_meaning_of_figures_is_reported(status: int, mode: str, word: str) -> None:
    """An operator must know why a part of the account is missing."""
    [concern] = AccountInformation(status, mode).concerns
    assert word in concern
