"""Stateless rows of the account: wallet, loan position, key and kind of account."""

from decimal import Decimal
from typing import Any

from hedgelock_ingest.sandbox.exchange.account.amounts import rounded, rounded_up, text

KEY_RESULT: dict[str, Any] = {
    "id": "13770661",
    "note": "read-only",
    "apiKey": "XXXXXX",
    "readOnly": 1,
    "secret": "",
    "permissions": {
        "ContractTrade": ["Order", "Position"],
        "Spot": ["SpotTrade"],
        "Wallet": [],
        "Options": [],
        "Derivatives": ["DerivativesTrade"],
        "Exchange": [],
    },
    "ips": ["*"],
    "type": 1,
    "deadlineDay": 83,
    "expiredAt": "2030-05-15T02:48:29Z",
    "createdAt": "2024-05-14T02:48:29Z",
    "unified": 0,
    "uta": 1,
    "userID": 100000001,
}
ACCOUNT_RESULT: dict[str, Any] = {
    "marginMode": "REGULAR_MARGIN",
    "updatedTime": "1697078946000",
    "unifiedMarginStatus": 5,
    "dcpStatus": "OFF",
    "timeWindow": 10,
    "smpGroup": 0,
    "isMasterTrader": False,
    "spotHedgingStatus": "OFF",
}


def wallet_row(balances: dict[str, str]) -> dict[str, Any]:
    """Describe the account with some of its coins. Source: Bybit V5, WebSocket Wallet; Get Wallet Balance."""
    return {
        "accountIMRate": "0.0312",
        "accountIMRateByMp": "0.0312",
        "accountMMRate": "0.0017",
        "accountMMRateByMp": "0.0017",
        "totalEquity": "90011.98943823",
        "totalWalletBalance": "90003.19038373",
        "totalMarginBalance": "90011.98943823",
        "totalAvailableBalance": "89698.9208178",
        "totalPerpUPL": "8.79905449",
        "totalInitialMargin": "313.06862043",
        "totalInitialMarginByMp": "313.06862043",
        "totalMaintenanceMargin": "17.32645111",
        "totalMaintenanceMarginByMp": "17.32645111",
        "coin": [_coin(name, balance) for name, balance in balances.items()],
        "accountLTV": "0",
        "accountType": "UNIFIED",
    }


def _coin(name: str, balance: str) -> dict[str, Any]:
    return {
        "coin": name,
        "equity": balance,
        "usdValue": balance,
        "walletBalance": balance,
        "availableToWithdraw": "",
        "availableToBorrow": "",
        "borrowAmount": "0",
        "accruedInterest": "0",
        "totalOrderIM": "0",
        "totalPositionIM": "0",
        "totalPositionMM": "0",
        "unrealisedPnl": "0",
        "cumRealisedPnl": "0",
        "bonus": "0",
        "collateralSwitch": True,
        "marginCollateral": True,
        "locked": "0",
        "spotHedgingQty": "0",
        "spotBorrow": "0",
        "colRes": "0",
    }


def collateral_result(debt: Decimal, collateral: Decimal) -> dict[str, Any]:
    """Describe the loan account. Source: Bybit V5, Crypto Loan (New), Get Crypto Loan Position."""
    return {
        "borrowList": [
            {
                "fixedTotalDebt": "0",
                "fixedTotalDebtUSD": "0",
                "flexibleHourlyInterestRate": "0.0000010633",
                "flexibleTotalDebt": text(debt),
                "flexibleTotalDebtUSD": text(debt),
                "loanCurrency": "USDT",
            }
        ],
        "collateralList": [
            {"amount": text(rounded(collateral / 60_000)), "amountUSD": text(collateral), "currency": "BTC"}
        ],
        "ltv": text(rounded_up(debt / collateral, 6)),
        "supplyList": [],
        "totalCollateral": text(collateral),
        "totalDebt": text(debt),
        "totalSupply": "0",
    }


def flexible_row(debt: str) -> dict[str, Any]:
    """Describe the flexible loan. Source: Bybit V5, Crypto Loan (New), Get Flexible Loans."""
    return {
        "hourlyInterestRate": "0.0000010633",
        "loanCurrency": "USDT",
        "totalDebt": debt,
        "unpaidAmount": debt,
        "unpaidInterest": "0",
    }
