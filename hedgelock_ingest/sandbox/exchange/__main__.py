"""Run the simulated exchange as a process, for tests: `python -m hedgelock_ingest.sandbox.exchange`."""

import argparse
import json
from pathlib import Path
from typing import Any

from hedgelock_ingest.sandbox.exchange.scenario import Scenario
from hedgelock_ingest.sandbox.exchange.serve import serve


def main() -> None:
    """Read a scenario from the command line, as JSON, and serve it."""
    parser = argparse.ArgumentParser(description="simulated Bybit v5 exchange")
    parser.add_argument("--scenario", default="{}", help="fields of Scenario as a JSON object")
    chosen: dict[str, Any] = json.loads(parser.parse_args().scenario)
    for name, value in chosen.items():
        if isinstance(value, list):
            chosen[name] = tuple(value)
    if "replay" in chosen:
        chosen["replay"] = Path(chosen["replay"])
    serve(Scenario(**chosen))


if __name__ == "__main__":
    main()
