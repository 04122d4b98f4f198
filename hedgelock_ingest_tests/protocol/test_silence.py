"""Silence of lines with pongs: which one is replaced, and when."""

import pytest

from hedgelock_ingest.protocol.silence import FORGOTTEN_AFTER_S, LONGEST_S, Replaced, Silence

STALE_S = 10.0


class Lines:
    """Two lines of one market, looked at every second; a replacement takes some seconds."""

    def __init__(self, *, takes_s: float = 5.0) -> None:
        self.silence = Silence(STALE_S)
        self.takes_s = takes_s
        self.replaced: list[tuple[float, str]] = []
        self._data_s = {"a": 0.0, "b": 0.0}
        self._ends: tuple[float, str] | None = None

    def pass_time(
        self, from_s: int, to_s: int, *, updates_every_s: int = 0, outcome: Replaced = Replaced.AS_SILENT
    ) -> None:
        """Let time pass; an update reaches both lines."""
        for now_s in range(from_s, to_s):
            if updates_every_s and now_s % updates_every_s == 0:
                self._data_s = dict.fromkeys(self._data_s, float(now_s))
            if self._ends is not None and now_s >= self._ends[0]:
                self.silence.end(outcome, now_s)
                self._data_s[self._ends[1]] = self._ends[0] - self.takes_s
                self._ends = None
            for name, data_s in self._data_s.items():
                if self.silence.is_due(now_s - data_s, now_s, is_behind=False):
                    self.silence.begin()
                    self.replaced.append((now_s, name))
                    self._ends = now_s + self.takes_s, name


def test_quiet_market_costs_few_replacements() -> None:
    """Each successor that is as silent doubles the allowed silence."""
    lines = Lines()
    lines.pass_time(0, 6 * 3_600)

    times = [at_s for at_s, _ in lines.replaced]
    assert times[:4] == [10, 35, 80, 165]
    assert len(lines.replaced) <= 6 * 3_600 / LONGEST_S + 7


@pytest.mark.parametrize("updates_every_s", [11, 15, 40, 59])
def test_market_with_a_rare_update_is_left_alone(updates_every_s: int) -> None:
    """Its pauses are known after the first ones."""
    lines = Lines()
    lines.pass_time(0, 3_600, updates_every_s=updates_every_s)

    assert 1 <= len(lines.replaced) <= 4


def test_lively_market_makes_silence_suspicious_again() -> None:
    """What was allowed at night is not by day."""
    lines = Lines()
    lines.pass_time(0, 3_600)
    night = len(lines.replaced)
    lines.pass_time(3_600, 3_700 + int(FORGOTTEN_AFTER_S), updates_every_s=1)
    assert len(lines.replaced) == night

    lines.pass_time(3_700 + int(FORGOTTEN_AFTER_S), 3_750 + int(FORGOTTEN_AFTER_S))

    assert lines.replaced[night][0] == 3_699 + int(FORGOTTEN_AFTER_S) + int(STALE_S)


def test_line_that_is_behind_is_replaced_whatever_is_allowed() -> None:
    """The other line brings what it lacks, so the silence is not the market's."""
    lines = Lines()
    lines.pass_time(0, 3_600)

    assert not lines.silence.is_due(STALE_S, 3_601.0, is_behind=False)
    assert lines.silence.is_due(STALE_S, 3_601.0, is_behind=True)
    assert not lines.silence.is_due(STALE_S - 0.1, 3_601.0, is_behind=True)


def test_lines_are_not_replaced_together() -> None:
    """Also if both are behind a third connection."""
    silence = Silence(STALE_S)
    assert silence.is_due(STALE_S, 10.0, is_behind=True)
    silence.begin()
    assert not silence.is_due(STALE_S, 10.0, is_behind=True)

    silence.end(Replaced.WAS_BEHIND, 12.0)

    assert silence.is_due(STALE_S + 2, 12.0, is_behind=True)


def test_failed_replacement_is_tried_again_later() -> None:
    """The exchange may refuse connections; the old line is better than none."""
    silence = Silence(STALE_S)
    silence.begin()
    silence.end(Replaced.FAILED, 20.0)

    assert not silence.is_due(STALE_S + 19, 29.9, is_behind=True)
    assert silence.is_due(STALE_S + 20, 30.0, is_behind=False)
