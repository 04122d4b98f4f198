"""Dagster's web pages as an operator uses them: addresses, content, buttons."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from playwright.async_api import Locator, Page, expect

from hedgelock_ingest.sandbox.children import start_tied
from hedgelock_ingest.sandbox.kafka.tcp_ports import free_port
from hedgelock_ingest_tests.defs.dagster_process import ROOT, DagsterStream
from hedgelock_ingest_tests.processes.stage import eventually

_OPENS_WITHIN_MS = 5_000

# A plot's axes are grey; columns with coloured pixels belong to its line.
_COLUMNS_OF_LINE = """
canvas => {
    const {width, height} = canvas;
    const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    const columns = new Set();
    for (let at = 0; at < pixels.length; at += 4) {
        const [red, green, blue, alpha] = pixels.slice(at, at + 4);
        if (alpha > 200 && Math.max(red, green, blue) - Math.min(red, green, blue) > 60)
            columns.add((at / 4) % width);
    }
    return columns.size / width;
}
"""


class DagsterUi(DagsterStream):
    """The stream under Dagster, with Dagster's webserver."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        """Prepare; no process is started."""
        super().__init__(folder, settings)
        self.pages_port = free_port()
        self._webserver: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of the pages."""
        return f"http://127.0.0.1:{self.pages_port}"

    def start(self) -> None:
        """Start the daemon and the webserver, each with a separate code server, as in production."""
        super().start()
        command = [sys.executable, "-m", "dagster_webserver", "-w", str(ROOT / "workspace.yaml")]
        command += ["-h", "127.0.0.1", "-p", str(self.pages_port)]
        with self.log_file.open("ab") as log:
            self._webserver = start_tied(command, environment=self.environment(), stdout=log, stderr=log)

    def end(self) -> None:
        """End all processes that were started here."""
        super().end()
        if self._webserver is not None:
            self._webserver.wait(10)


class Pages:
    """Dagster's pages in one browser tab."""

    def __init__(self, page: Page, url: str) -> None:
        """Use the pages served at `url`."""
        self.page = page
        self.url = url

    async def open(self, path: str) -> None:
        """Go to an address, such as `/runs`."""
        await self.page.goto(self.url + path)

    async def press(self, name: str) -> None:
        """Press a button by its text; if there are several, the one in the topmost layer."""
        await self.page.get_by_role("button", name=name).last.click()

    async def click_until_shown(self, button: Locator, shown: Locator) -> None:
        """Click until something opens: a page that is still loading may replace the clicked element."""

        async def is_shown() -> bool:
            await button.click()
            with suppress(AssertionError):
                await expect(shown).to_be_visible(timeout=_OPENS_WITHIN_MS)
                return True
            return False

        await eventually("what the click opens", is_shown, timeout_s=90)

    async def shows(self, text: str) -> None:
        """Wait until the page shows a text."""
        await expect(self.page.get_by_text(text).first).to_be_visible()

    def node(self, name: str) -> Locator:
        """Find an asset, or a group of them, in the graph."""
        return self.page.locator("foreignObject").get_by_text(name, exact=True)

    def link(self, text: str) -> Locator:
        """Find a link by its text."""
        return self.page.get_by_role("link", name=text, exact=True)

    def arrows(self) -> Locator:
        """Find the arrows of the graph."""
        return self.page.locator("svg path[marker-end]")

    async def left_edge(self, name: str) -> float:
        """Return the x coordinate of a node of the graph."""
        box = await self.node(name).first.bounding_box()
        assert box is not None, f"{name} is not in the graph"
        return box["x"]

    async def width_of_plot(self, figure: str) -> float:
        """Return the share of a plot's width that its line spans; a single point is a dot, two form a line."""
        await self.page.locator("canvas").first.wait_for()
        heading = self.page.get_by_text(figure, exact=True).last  # the description names it, too
        canvas = heading.locator("xpath=following::canvas[1]")
        await canvas.scroll_into_view_if_needed()
        return float(await canvas.evaluate(_COLUMNS_OF_LINE))

    def check(self, name: str) -> Locator:
        """Find a check in the list of an asset's checks: its name and, below, its result."""
        return self.page.get_by_title(name, exact=True).locator("xpath=..")
