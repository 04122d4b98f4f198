"""The configuration of one simulated exchange."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """
    Seed, symbols and pace of a simulated exchange.

    Exchanges of one `seed` send the same trade ids and update ids; a second exchange that represents a later state
    of Bybit needs another seed.

    `rate` is the number of frames a second over all channels that were ever subscribed to, shared among books,
    trades and tickers about 5 : 3 : 2; None is Bybit's own pace, and with 0 only repeats are sent. A channel runs
    from its first subscription on, with or without subscribers, as a market does.

    `volatility` is the standard deviation of one step of the price path, as a share of the price.
    `data_before_ack` is the share of subscriptions whose snapshot overtakes the acknowledgement.
    `answer_delay_s` is the time to the answer of any request: stock pybit needs 0.05, since it loses answers
    that come before it has recorded its own request. `ledger_size` bounds how many identities are kept.
    `replay` is a file of recorded frames that are sent once instead of simulated ones, from the first subscription
    on; `replay_rate` is in frames a second.

    Of the account: `key` names the API key that `serve` prints, one of `keys.KEYS`; all of them work. With
    `account_life_s` the account trades or cancels that often, on average; with None it does nothing. `course` is
    one of `price_fall.COURSES`: prices fall so that the loan crosses that threshold within `course_s`.
    `interest_hour_s` is how long an hour of interest takes. `max_active_s` is how long a private line may be idle
    where it requests no other time, `idle_scan_s` how often that is checked.
    `contract_wallet` are the coins of a second wallet for inverse contracts (UTA 1.0), such as `{"BTC": "0.2"}`;
    without coins there is none.
    `requests_per_s` sets limits by path, for the user. An address with more than `requests_per_5_s` is refused for
    `ban_s`; with more than `public_per_5_s` unsigned requests, only these are.
    `history_size` bounds how many frames, answers and states of the account are kept.
    """

    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 1
    spot_symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT")
    linear_symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT")
    rate: float | None = None
    liquidations_per_s: float = 0.05
    volatility: float = 5e-6
    level1_repeat_s: float = 3.0
    data_before_ack: float = 0.5
    answer_delay_s: float = 0.0
    connections_per_5_minutes: int = 500
    unsent_bytes: int = 64 * 1024 * 1024
    ledger_size: int = 2_000_000
    replay: Path | None = None
    replay_rate: float = 10.0
    key: str | None = None
    account_life_s: float | None = None
    course: str = "calm"
    course_s: float = 60.0
    margin_call_ltv: str = "0.85"
    liquidation_ltv: str = "0.95"
    interest_hour_s: float = 3_600.0
    max_active_s: float = 600.0
    idle_scan_s: float = 30.0
    contract_wallet: Mapping[str, str] = field(default_factory=dict)
    requests_per_s: Mapping[str, int] = field(default_factory=dict)
    requests_per_5_s: int = 600
    public_per_5_s: int = 600
    ban_s: float = 600.0
    history_size: int = 20_000
