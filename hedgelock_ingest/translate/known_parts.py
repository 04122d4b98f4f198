"""The parts of an account that were not polled, as other messages of `account_raw` have them."""

from datetime import datetime
from typing import Final

from hedgelock_ingest.models.account import AccountRaw, AsOf, Balance, BalanceDetail

_FIELDS_BY_PART: Final = {
    "balances": ("balances", "balances_detail", "margin"),
    "other_balances": ("other_balances",),
    "positions": ("positions",),
    "collateral_info": ("collateral_info",),
    "loan_info": ("loan_info",),
}


class KnownParts:
    """The last known parts of one account, each in the message that has it as of the latest time."""

    def __init__(self) -> None:
        """Start without any part."""
        self._messages: dict[str, AccountRaw] = {}

    def add(self, message: AccountRaw) -> None:
        """Keep those parts of a message that are as of a later time than the known ones, in whatever order it comes."""
        for part in _parts_in(message):
            if part not in self._messages or _moment(message, part) > _moment(self._messages[part], part):
                self._messages[part] = message

    def complete(self, message: AccountRaw, *, is_whole: bool = True) -> AccountRaw:
        """
        Return a message with its parts and the known others, and keep its own.

        Unless its balances are a whole list, the known coins that it lacks are added, with their times.
        """
        own = _parts_in(message)
        fields: dict[str, object] = {}
        times = {name: _time_of(message, name) for name in AsOf.model_fields}
        for part, source in self._messages.items():
            if part not in own:
                fields |= {name: getattr(source, name) for name in _FIELDS_BY_PART[part]}
                times |= {part: _time_of(source, part)} if part in times else {}
        if "balances" in own and "balances" in self._messages:
            fields |= _with_known_balances(message, self._messages["balances"], adds_coins=not is_whole)
        completed = message.model_copy(update=fields | {"as_of": AsOf(**times)})
        self.add(completed)
        return completed


def _parts_in(message: AccountRaw) -> list[str]:
    return [part for part in _FIELDS_BY_PART if getattr(message, part) is not None]


def _time_of(message: AccountRaw, part: str) -> datetime | None:
    if getattr(message, part) is None:
        return None
    # Messages of earlier versions hold one part, as of the message's time.
    at: datetime | None = message.timestamp if message.as_of is None else getattr(message.as_of, part)
    return at


def _moment(message: AccountRaw, part: str) -> datetime:
    return _time_of(message, part if part in AsOf.model_fields else "balances") or message.timestamp


def _with_known_balances(message: AccountRaw, known: AccountRaw, *, adds_coins: bool) -> dict[str, object]:
    """Return the balances of a message with known available balances where Bybit reported none."""
    balances: dict[str, Balance] = dict(message.balances or {})
    details: dict[str, BalanceDetail] = dict(message.balances_detail or {})
    for coin, earlier in (known.balances or {}).items():
        detail = (known.balances_detail or {}).get(coin)
        if adds_coins and coin not in balances and detail is not None:
            balances[coin], details[coin] = earlier, detail
        if coin not in balances or balances[coin].available_balance is not None:
            continue
        available = {"available_balance": earlier.available_balance}
        balances[coin] = balances[coin].model_copy(update=available)
        if coin in details and detail is not None:
            update = available | {"available_balance_at": detail.available_balance_at}
            details[coin] = details[coin].model_copy(update=update)
    return {"balances": balances, "balances_detail": None if message.balances_detail is None else details}
