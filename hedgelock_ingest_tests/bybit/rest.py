"""A REST client for tests: against the simulated exchange, with short timeouts."""

from typing import Any

from pydantic import SecretStr

from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.bybit.rest_port import RestTiming
from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest.sandbox.exchange.keys import KEYS, ApiKey
from hedgelock_ingest.settings import Settings

QUICK = RestTiming(
    connect_timeout_s=1.0,
    read_timeout_s=0.5,
    answer_timeout_s=2.0,
    retry_initial_s=0.02,
    retry_max_s=0.1,
    longest_wait_s=5.0,
)


def settings_for(exchange: SimulatedExchange, key: ApiKey | None = KEYS["read-only"], **fields: Any) -> Settings:
    """Point settings at an exchange, with one of its keys."""
    secrets: dict[str, Any] = {}
    if key is not None:
        secrets = {"bybit_api_key": SecretStr(key.api_key), "bybit_api_secret": SecretStr(key.api_secret)}
    return Settings(
        **{
            "bybit_public_ws_url": exchange.public_ws_url,
            "bybit_private_ws_url": exchange.private_ws_url,
            "bybit_rest_url": exchange.rest_url,
            "bybit_rest_requests_per_second": 50,
            **secrets,
            **fields,
        }
    )


def client_for(
    exchange: SimulatedExchange,
    key: ApiKey | None = KEYS["read-only"],
    *,
    timing: RestTiming = QUICK,
    **fields: Any,
) -> RestClient:
    """Make a client of an exchange."""
    return RestClient(settings_for(exchange, key, **fields), timing)
