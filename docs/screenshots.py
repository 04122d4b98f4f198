"""
Take the pictures of Dagster's pages in docs/pictures from a running demo.

`python docs/screenshots.py http://127.0.0.1:3000`, a few minutes after the start of the demo; for the picture of the
checks, kill the stream once and launch `check_topics` first. Names after the address select single pictures.
"""

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from io import BytesIO
from pathlib import Path

from PIL import Image

from hedgelock_ingest_tests.defs.browser import browsing
from hedgelock_ingest_tests.defs.ui_pages import Pages

PICTURES = Path(__file__).with_name("pictures")
SETTLE_S = 3.0
"""Graphs and plots are painted after their texts."""


async def _lineage(pages: Pages) -> None:
    await pages.open("/assets/kafka/market-data?view=lineage")
    await pages.shows("orderbook_50")


async def _groups(pages: Pages) -> None:
    await pages.open("/asset-groups")
    await pages.shows("kafka_market")


async def _topic(pages: Pages) -> None:
    await pages.open("/assets/kafka/market-data")
    await pages.shows("shows a change within seconds")


async def _plots(pages: Pages) -> None:
    await _topic(pages)
    await pages.press("Plots")
    await pages.width_of_plot("latency p99 ms")


async def _run(pages: Pages) -> None:
    await pages.open("/runs?q[0]=job:stream")
    await pages.page.get_by_role("link", name=re.compile("^run ")).first.click()
    await pages.shows("Data flows")


async def _checks(pages: Pages) -> None:
    await pages.open("/assets/audit?view=checks")
    await pages.check("no_holes").click()
    await pages.shows("Evaluation result")


async def _loan(pages: Pages) -> None:
    await pages.open("/assets/collateral?view=events")
    await pages.page.get_by_text("[Show Markdown]").first.click()
    await pages.shows("LTV over time")


async def _sensor(pages: Pages) -> None:
    await pages.open("/locations/hedgelock_ingest/sensors/keep_streaming")
    await pages.shows("runs requested")


VIEWS: dict[str, Callable[[Pages], Awaitable[None]]] = {
    "groups": _groups,
    "lineage": _lineage,
    "topic": _topic,
    "plots": _plots,
    "run": _run,
    "checks": _checks,
    "loan": _loan,
    "sensor": _sensor,
}


async def take(address: str, names: list[str]) -> None:
    """Take the named pictures, or all; 256 colours each keep them small."""
    PICTURES.mkdir(exist_ok=True)
    async with browsing() as page:
        await page.set_viewport_size({"width": 1280, "height": 760})
        for name in names or VIEWS:
            await VIEWS[name](Pages(page, address))
            await asyncio.sleep(SETTLE_S)
            file = PICTURES / f"{name}.png"
            picture = Image.open(BytesIO(await page.screenshot())).convert("RGB")
            # The octree keeps colours that are rare, such as the red of what failed.
            picture.quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(file, optimize=True)
            print(f"{name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    asyncio.run(take((sys.argv[1:] or ["http://127.0.0.1:3000"])[0], sys.argv[2:]))
