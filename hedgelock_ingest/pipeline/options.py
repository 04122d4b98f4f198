"""The settings that the pipeline uses."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """
    Full order books, stop timeout, account id; then the pace of periodic work.

    Saving a state blocks the loop for milliseconds when many symbols are carried: at `save_interval_s` it delays less
    than one frame in a hundred. At high rates a commit waits until `commit_pace_s` after the previous one: fewer,
    larger groups leave time for publishing. `tick_s` is the interval of checks that no event triggers.
    `open_lines_within_s` is how long the lines wait for Kafka at a start.
    """

    state_depth: int
    state_interval_ms: int
    stop_timeout_s: float
    account_id: str = "default_account"
    save_interval_s: float = 5.0
    commit_pace_s: float = 0.006
    tick_s: float = 0.25
    journal_retry_s: float = 0.25
    open_lines_within_s: float = 1.0
