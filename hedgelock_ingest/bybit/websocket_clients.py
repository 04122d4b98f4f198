"""The two WebSocket clients, by `BYBIT_WEBSOCKET_CLIENT`."""

from collections.abc import Mapping

from hedgelock_ingest.bybit import pybit_client, websockets_client
from hedgelock_ingest.bybit.socket_port import Connect

CONNECT_BY_CLIENT: Mapping[str, Connect] = {
    "websockets": websockets_client.open_connection,
    "pybit": pybit_client.open_connection,
}
