"""The endpoints of crypto loans, new and legacy."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hedgelock_ingest.sandbox.exchange.account.amounts import text
from hedgelock_ingest.sandbox.exchange.account.loan_records import LoanRecords
from hedgelock_ingest.sandbox.exchange.account.loan_terms import (
    HOURLY_RATES,
    collateral_terms,
    legacy_collateral_terms,
    loanable_terms,
)
from hedgelock_ingest.sandbox.exchange.account.state import AccountState
from hedgelock_ingest.sandbox.exchange.keys import ApiKey
from hedgelock_ingest.sandbox.exchange.rest.access_control import Answer, Endpoint
from hedgelock_ingest.sandbox.exchange.rest.pages import limited, matching, page, required

_NEW, _LEGACY = "ok", "request.success"
_AREA = "Spot"


class LoanEndpoints:
    """`/v5/crypto-loan-common/…`, `-flexible/…`, `-fixed/…` and `/v5/crypto-loan/…`."""

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoints, with Bybit's limits: five requests a second each."""
        return [
            _signed("-common/position", lambda state, query, key: state.loans.position()),
            _signed("-common/max-collateral-amount", self._max_collateral),
            _signed(
                "-common/adjustment-history",
                _history(lambda records: records.adjustments, "adjustId", collateralCurrency="collateralCurrency"),
            ),
            _signed("-flexible/ongoing-coin", self._ongoing),
            _signed(
                "-flexible/borrow-history",
                _history(lambda records: records.borrowings, "orderId", loanCurrency="loanCurrency"),
            ),
            _signed(
                "-flexible/repayment-history",
                _history(lambda records: records.flexible_repayments, "repayId", loanCurrency="loanCurrency"),
            ),
            _signed(
                "-fixed/borrow-contract-info",
                _history(
                    lambda records: [loan.contract_row() for loan in records.contracts.values()],
                    "loanId",
                    orderId="orderId",
                    orderCurrency="borrowCurrency",
                    term="term",
                ),
            ),
            _signed(
                "-fixed/borrow-order-info",
                _history(
                    lambda records: [loan.order_row() for loan in records.contracts.values()],
                    "orderId",
                    orderCurrency="orderCurrency",
                    state="state",
                    term="term",
                ),
            ),
            _signed(
                "-fixed/repayment-history",
                _history(lambda records: records.fixed_repayments, "repayId", loanCurrency="loanCurrency"),
            ),
            _signed("/ongoing-orders", self._legacy_orders, ret_msg=_LEGACY),
            _public(
                "-common/collateral-data", lambda state, query, key: collateral_terms(query.get("currency") or None)
            ),
            _public(
                "-common/loanable-data",
                lambda state, query, key: loanable_terms(
                    query.get("currency") or None, query.get("vipLevel") or "VIP0"
                ),
            ),
            _public(
                "/collateral-data",
                lambda state, query, key: legacy_collateral_terms(query.get("currency") or None, query.get("vipLevel")),
                ret_msg=_LEGACY,
            ),
        ]

    def _max_collateral(self, state: AccountState, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        return {"maxCollateralAmount": text(state.loans.max_reduction(required(query, "currency")))}

    def _ongoing(self, state: AccountState, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        return {
            "list": [
                {
                    "hourlyInterestRate": text(HOURLY_RATES[coin]),
                    "loanCurrency": coin,
                    "totalDebt": text(debt.owed),
                    "unpaidAmount": text(debt.principal),
                    "unpaidInterest": text(debt.interest),
                }
                for coin, debt in state.loans.flexible.items()
                if query.get("loanCurrency") in (None, "", coin)
            ]
        }

    def _legacy_orders(self, state: AccountState, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        rows = matching(
            state.loans.records.legacy,
            query,
            orderId="orderId",
            loanCurrency="loanCurrency",
            collateralCurrency="collateralCurrency",
        )
        return {"list": rows[: limited(query, default=10, most=100)], "nextPageCursor": ""}


def _signed(path: str, answer: Answer, *, ret_msg: str = _NEW) -> Endpoint:
    path = f"/v5/crypto-loan{path}"
    return Endpoint(path=path, answer=answer, per_s=5, area=_AREA, ret_msg=ret_msg, is_in_demo=False)


def _public(path: str, answer: Answer, *, ret_msg: str = _NEW) -> Endpoint:
    return Endpoint(path=f"/v5/crypto-loan{path}", answer=answer, per_s=None, ret_msg=ret_msg, is_public=True)


def _history(rows: Callable[[LoanRecords], Sequence[dict[str, Any]]], identity: str, **filters: str) -> Answer:
    def answer(state: AccountState, query: Mapping[str, str], key: ApiKey) -> dict[str, Any]:
        found, cursor = page(
            matching(
                rows(state.loans.records),
                query,
                **{identity: identity},
                **{k: v for k, v in filters.items() if k != identity},
            ),
            query,
            limit=limited(query, default=10, most=100),
            number=lambda row: int(row[identity]),
        )
        return {"list": found, "nextPageCursor": cursor}

    return answer
