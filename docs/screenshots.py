"""
Take the pictures of Dagster's pages in docs/pictures, from the demo as it runs.

Needs `chromium`. `python docs/screenshots.py http://127.0.0.1:3000`; run it a few minutes after the demo's start.
"""

import base64
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PICTURES = Path(__file__).with_name("pictures")
SIZE = (1440, 900)
PORT = 9333
LOADED_TIMEOUT_S = 60.0

_RUN = '{ runsOrError(filter: {pipelineName: "stream"}, limit: 1) { ... on Runs { results { id } } } }'


def pages(dagster: str) -> dict[str, tuple[str, str]]:
    """Give each picture's address, and a text that shows that the page is there."""
    run = _ask(dagster, _RUN)["runsOrError"]["results"][0]["id"]
    return {
        "lineage": (f"{dagster}/asset-groups", "kafka_market"),
        "run": (f"{dagster}/runs/{run}", "carry_shard"),
        "topic": (f"{dagster}/assets/kafka/market-data?view=events", "records per s"),
        "loan": (f"{dagster}/assets/collateral?view=events", "LTV"),
        "checks": (f"{dagster}/assets/audit?view=checks", "no_holes"),
        "sensor": (f"{dagster}/locations/hedgelock_ingest/sensors/keep_streaming", "keep_streaming"),
    }


def _ask(dagster: str, query: str) -> Any:
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{dagster}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)["data"]


@contextmanager
def browser() -> Iterator[ClientConnection]:
    """Start Chromium without a window, and open a connection to its one page."""
    with tempfile.TemporaryDirectory() as profile:
        size = f"--window-size={SIZE[0]},{SIZE[1]}"
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size]
        command = ["chromium", *options, f"--user-data-dir={profile}", f"--remote-debugging-port={PORT}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_page_address(), max_size=None) as connection:
                yield connection
        finally:
            process.terminate()
            process.wait(20)


def _page_address() -> str:
    deadline_s = time.monotonic() + LOADED_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/json/list", timeout=5) as answer:
                found = [page for page in json.load(answer) if page["type"] == "page"]
                return str(found[0]["webSocketDebuggerUrl"])
        except (OSError, IndexError):
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.2)


_numbers = count(1)


def call(connection: ClientConnection, method: str, **parameters: object) -> Any:
    """Call the browser and return its answer."""
    number = next(_numbers)
    connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
    while True:
        answer = json.loads(connection.recv(timeout=LOADED_TIMEOUT_S))
        if answer.get("id") == number:
            return answer["result"]


def take(connection: ClientConnection, name: str, address: str, text: str) -> None:
    """Open an address, wait until it shows the text, and keep what is seen."""
    call(connection, "Page.navigate", url=address)
    deadline_s = time.monotonic() + LOADED_TIMEOUT_S
    shown = f"document.body !== null && document.body.innerText.includes({json.dumps(text)})"
    while not call(connection, "Runtime.evaluate", expression=shown)["result"].get("value"):
        if time.monotonic() > deadline_s:
            print(f"{name}: {address} did not show {text!r}; the picture is taken as it is")
            break
        time.sleep(0.5)
    time.sleep(4)  # graphs and plots are painted after their words are there
    picture = call(connection, "Page.captureScreenshot", format="png")
    (PICTURES / f"{name}.png").write_bytes(base64.b64decode(picture["data"]))
    print(f"{name}: {(PICTURES / f'{name}.png').stat().st_size} bytes")


def main() -> None:
    """Take all pictures, or those named after the address."""
    dagster = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:3000"
    PICTURES.mkdir(exist_ok=True)
    with browser() as connection:
        for name, (address, text) in pages(dagster).items():
            if name in sys.argv[2:] or len(sys.argv) < 3:
                take(connection, name, address, text)


if __name__ == "__main__":
    main()
