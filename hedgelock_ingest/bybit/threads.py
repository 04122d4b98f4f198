"""Blocking calls from the event loop."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


async def in_daemon_thread[Answer](call: Callable[[], Answer], *, name: str) -> Answer:
    """Run a blocking call in a daemon thread, which does not block the program's exit."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Answer] = loop.create_future()

    def settle(value: Answer | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(value)  # type: ignore[arg-type]  # without an error there is a value

    def work() -> None:
        value, failure = None, None
        try:
            value = call()
        except Exception as error:  # noqa: BLE001  # passed to the waiting caller
            failure = error
        # The event loop may be closed when a late answer arrives.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=work, daemon=True, name=name).start()
    return await answer
