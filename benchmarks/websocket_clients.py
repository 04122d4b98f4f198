"""
Benchmark of the WebSocket clients: cost of receiving, from the socket to the event loop, without decoding.

A server in a separate process sends frames as fast as they are read, then 1,000 per second that carry their send time.
Each client runs in a separate process, one after the other, for several rounds: our two clients, and the libraries as
their documentation uses them. Three rounds take under three minutes.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection as Pipe
from typing import Any

import uvloop

from hedgelock_ingest.bybit import pybit_client, websockets_client
from hedgelock_ingest.bybit.socket_port import Connect

_FLOOD_S = 2.0
_PACED_S = 3.0
_RATE = 1_000
_BURST = 500
_UNTIMED = 10**18
_TEXT = (
    '{{"topic":"tickers.BTCUSDT","type":"snapshot","data":{{"symbol":"BTCUSDT","markPrice":"61875.06",'
    '"indexPrice":"61903.59","openInterestValue":"3595994223.27","bid1Price":"61873.90","bid1Size":"3.543"}},'
    '"cs":176530004279,"ts":{}}}'
)


class Meter:
    """Counts frames and collects their latencies, for a number of seconds."""

    def __init__(self, seconds: float) -> None:
        self.is_done = False
        self._seconds = seconds
        self._count = 0
        self._latencies_ms: list[float] = []
        self._began_s = self._began_cpu_s = self._elapsed_s = self._cpu_s = 0.0

    def take(self, sent_ns: list[int]) -> None:
        """Count frames that were sent at these times, in nanoseconds."""
        if self.is_done:
            return
        now_ns = time.time_ns()
        if not self._count:
            self._began_s, self._began_cpu_s = time.perf_counter(), time.process_time()
        self._count += len(sent_ns)
        self._latencies_ms += [(now_ns - sent) / 1e6 for sent in sent_ns if sent != _UNTIMED]
        self._elapsed_s = time.perf_counter() - self._began_s
        if self._elapsed_s >= self._seconds:
            self._cpu_s = time.process_time() - self._began_cpu_s
            self.is_done = True

    def figures(self) -> dict[str, float]:
        """Return frames per second, CPU per frame and, if the frames carry their send time, latency."""
        figures = {"frames_per_s": self._count / self._elapsed_s, "cpu_us": 1e6 * self._cpu_s / self._count}
        if self._latencies_ms:
            cuts = statistics.quantiles(self._latencies_ms, n=100)
            figures |= {"p50_ms": cuts[49], "p99_ms": cuts[98]}
        return figures


async def _ours(connect: Connect, url: str, meter: Meter) -> None:
    done = asyncio.Event()

    def take(frames: list[bytes], _: int) -> None:
        meter.take([int(raw[-20:-1]) for raw in frames])
        if meter.is_done:
            done.set()

    connection = await connect(url)
    connection.deliver(take)
    await connection.send('{"op":"subscribe"}')
    await done.wait()
    await connection.close(1.0)


async def _websockets(url: str, meter: Meter) -> None:
    from websockets.asyncio.client import connect

    async with connect(url, compression=None, proxy=None) as socket:
        await socket.send('{"op":"subscribe"}')
        async for text in socket:
            meter.take([int(text[-20:-1])])
            if meter.is_done:
                break


async def _pybit(url: str, meter: Meter) -> None:
    import pybit.unified_trading

    pybit.unified_trading.PUBLIC_WSS = url
    done = threading.Event()

    def take(message: dict[str, Any]) -> None:
        meter.take([message["ts"]])
        if meter.is_done:
            done.set()

    socket = pybit.unified_trading.WebSocket(testnet=True, channel_type="linear")
    socket.ticker_stream("BTCUSDT", take)
    await asyncio.to_thread(done.wait)
    socket.exit()


CLIENTS: dict[str, Callable[[str, Meter], Awaitable[None]]] = {
    "websockets (default)": lambda url, meter: _ours(websockets_client.open_connection, url, meter),
    "pybit": lambda url, meter: _ours(pybit_client.open_connection, url, meter),
    "the websockets library alone": _websockets,
    "stock pybit, decoding and copying": _pybit,
}


def run_client(name: str, url: str, seconds: float, pipe: Pipe) -> None:
    """Receive with one client and send its figures to the parent."""
    meter = Meter(seconds)

    async def receive() -> None:
        await CLIENTS[name](url, meter)

    uvloop.run(receive())
    pipe.send(meter.figures())


def serve(pipe: Pipe) -> None:
    """Run a server that sends frames on each connection after its first message; the path selects the load."""

    async def main() -> None:
        server = await asyncio.start_server(_serve_client, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


async def _serve_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = await reader.readuntil(b"\r\n\r\n")
    key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    accept = hashlib.sha1(key.split(b": ")[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11")  # noqa: S324  RFC 6455
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(accept.digest()) + b"\r\n\r\n"
    )
    await reader.read(1)
    await asyncio.sleep(0.1)  # stock pybit notes its subscription after it has sent it
    with contextlib.suppress(ConnectionError, RuntimeError):  # uvloop raises RuntimeError on a closed socket
        await (_send_paced(writer) if b"/paced" in request else _send_flood(writer))


async def _send_flood(writer: asyncio.StreamWriter) -> None:
    burst = _frame(_UNTIMED) * _BURST
    while True:
        writer.write(burst)
        await writer.drain()


async def _send_paced(writer: asyncio.StreamWriter) -> None:
    began_s = time.perf_counter()
    for number in itertools.count():
        await asyncio.sleep(began_s + number / _RATE - time.perf_counter())
        writer.write(_frame(time.time_ns()))
        await writer.drain()


def _frame(sent_ns: int) -> bytes:
    payload = _TEXT.format(sent_ns).encode()
    return b"\x81\x7e" + len(payload).to_bytes(2) + payload


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Run all clients in turn and return the medians of the rounds."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    base = f"ws://127.0.0.1:{ours.recv()}/v5/public"
    found: dict[str, dict[str, list[float]]] = {name: {} for name in CLIENTS}
    try:
        for _ in range(rounds):
            for name in CLIENTS:
                for path, seconds in (("flood", _FLOOD_S), ("paced", _PACED_S)):
                    client = context.Process(target=run_client, args=(name, f"{base}/{path}", seconds, theirs))
                    client.start()
                    client.join()
                    if client.exitcode:
                        raise SystemExit(f"client {name} failed")
                    for figure, value in ours.recv().items():
                        found[name].setdefault(f"{path}_{figure}", []).append(value)
    finally:
        server.terminate()
        server.join()
    return {
        name: {figure: round(statistics.median(values), 3) for figure, values in figures.items()}
        for name, figures in found.items()
    }


def main() -> None:
    """Print a table, or JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    figures = measure(arguments.rounds)
    if arguments.json:
        json.dump(figures, sys.stdout, indent=2)
        print()
        return
    print("| client | frames/s at most | CPU us a frame | at 1,000/s: CPU us a frame | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|")
    for name, values in figures.items():
        print(
            f"| {name} | {values['flood_frames_per_s']:,.0f} | {values['flood_cpu_us']:.1f} "
            f"| {values['paced_cpu_us']:.0f} | {values['paced_p50_ms']:.2f} | {values['paced_p99_ms']:.2f} |"
        )


if __name__ == "__main__":
    main()
