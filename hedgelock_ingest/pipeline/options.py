"""What of the settings the pipeline needs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """
    Our own full order books, how long a stop may take, the journal's bound, whose account it is; then what is paced.

    Saving a state halts the loop for milliseconds when many symbols are carried: at `save_interval_s` less than one
    frame in a hundred may notice. At high rates a commit waits until `commit_pace_s` after the last: fewer, larger
    groups leave time for publishing. `tick_s` is how often everything is looked at that no event announces.
    """

    state_depth: int
    state_interval_ms: int
    stop_timeout_s: float
    journal_max_bytes: int
    account_id: str = "default_account"
    save_interval_s: float = 5.0
    commit_pace_s: float = 0.006
    tick_s: float = 0.25
    journal_retry_s: float = 0.25
