"""A headless browser: Debian's Chromium, driven by Playwright."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Page, ViewportSize, async_playwright, expect

SIZE = ViewportSize(width=1440, height=900)
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """
    Find the browser: the program that `CHROMIUM` names, or the first on the path.

    Raises:
        FileNotFoundError: There is none; the message states how to install one.
    """
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        raise FileNotFoundError(
            'no Chromium was found: "make browser" installs it (Debian, as root); otherwise run '
            '"apt-get install chromium" as root, or set CHROMIUM to any Chromium or Chrome'
        )
    return found


@asynccontextmanager
async def browsing(*, timeout_s: float = 60) -> AsyncIterator[Page]:
    """Open a browser page; each wait may take `timeout_s`."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium())
        try:
            page = await browser.new_page(viewport=SIZE)
            page.set_default_timeout(timeout_s * 1000)
            expect.set_options(timeout=timeout_s * 1000)
            yield page
        finally:
            await browser.close()
