"""What of the settings the pipeline needs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Our own full order books, how long a stop may take, the journal's bound, whose account it is."""

    state_depth: int
    state_interval_ms: int
    stop_timeout_s: float
    journal_max_bytes: int
    account_id: str = "default_account"
