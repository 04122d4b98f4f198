"""
I/O with Bybit: WebSocket lines and REST. It moves bytes; decisions belong to `protocol`.

The only package that imports pybit, requests, urllib3, websocket-client and websockets. May import `translate`,
`models` and `protocol`; not `kafka` or `journal`.
"""
