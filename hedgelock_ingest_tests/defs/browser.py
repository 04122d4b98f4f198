"""A real browser without a window: Debian's Chromium, driven by Playwright."""

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
        FileNotFoundError: There is none; it says how to get one.
    """
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        raise FileNotFoundError(
            'no Chromium was found: "make browser" installs it where it may (Debian, as root); elsewhere have '
            '"apt-get install chromium" run as root, or name any Chromium or Chrome in CHROMIUM'
        )
    return found


@asynccontextmanager
async def browsing(*, timeout_s: float = 60) -> AsyncIterator[Page]:
    """Open a page as a person has it before them; whatever is waited for may take `timeout_s`."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium())
        try:
            page = await browser.new_page(viewport=SIZE)
            page.set_default_timeout(timeout_s * 1000)
            expect.set_options(timeout=timeout_s * 1000)
            yield page
        finally:
            await browser.close()
