"""
The application `hedgelock-ingest`: its commands in the order of `--help`, and its exit codes.

Each command parses its arguments and calls a service. Imports are inside the commands, so that `--help` answers at
once.
"""

import sys
from collections.abc import Sequence

import typer

from hedgelock_ingest.cli.gaps_and_dead_letters import gaps_app, letters_app
from hedgelock_ingest.cli.sandbox import demo, sandbox_app
from hedgelock_ingest.cli.settings_and_output import print_errors
from hedgelock_ingest.cli.stream import check, replay, run
from hedgelock_ingest.cli.topics import schemas, tail, topics
from hedgelock_ingest.errors import IngestError, KeyRefused, SettingsInvalid, first_error

_INTERRUPTED = 130

_HELP = """
Bring Bybit's account, loan and market data into Kafka: exactly once, in order, with every gap recorded.

\b
First steps:
  hedgelock-ingest demo                          everything on this machine: no account, no key, no Kafka
  hedgelock-ingest check                         check the settings and all connections
  hedgelock-ingest run                           the stream, until Ctrl-C or SIGTERM
  hedgelock-ingest tail market-data --follow     look at what arrives

\b
Settings come from, the first one wins:
  1. the environment, such as BYBIT_SPOT_SYMBOLS=BTCUSDT,ETHUSDT
  2. a YAML file with the same names: HEDGELOCK_CONFIG, or config/collector.yaml if it is there
  3. defaults: Bybit's testnet, BTCUSDT, Kafka on localhost:9092
"hedgelock-ingest check" shows each setting with its origin; docs/settings.md describes them all.

\b
Exit codes:
  0  a clean stop
  1  anything else that went wrong, reported in one line; MONITORING_LOG_LEVEL=DEBUG adds the traceback
  2  wrong settings or arguments, each one named
  3  Bybit refuses the API key, or the key may trade and BYBIT_ALLOW_TRADING_KEY is not set
"""

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
for command in (run, demo, check, tail, replay, topics, schemas):
    app.command()(command)
app.add_typer(gaps_app, name="gaps")
app.add_typer(letters_app, name="dead-letters")
app.add_typer(sandbox_app, name="sandbox")


def main() -> None:
    """Run a command and end the process with its exit code; no traceback unless logs are set to DEBUG."""
    try:
        app()
    except SettingsInvalid as error:
        print_errors("wrong settings:", *(f"  {problem}" for problem in error.problems))
        sys.exit(2)
    except KeyRefused as error:
        _fail(error, str(error), 3)
    except IngestError as error:
        _fail(error, str(error), 1)
    except Exception as raised:  # noqa: BLE001  # the outermost handler: any error becomes one line and an exit code
        cause = first_error(raised) if isinstance(raised, ExceptionGroup) else raised
        _fail(raised, f"{type(cause).__name__}: {cause}", 1)
    except SystemExit as stop:
        sys.exit(1 if stop.code == _INTERRUPTED else stop.code)


def _fail(error: BaseException, text: str, code: int) -> None:
    """Print an error in one line without secrets, and exit."""
    from hedgelock_ingest.redaction import Redaction

    secret_texts, is_debugging = _secrets_and_debugging()
    redaction = Redaction(secret_texts)
    if is_debugging:
        import traceback

        print_errors(redaction.text("".join(traceback.format_exception(error))))
    print_errors("error: " + redaction.text(" ".join(text.split())))
    sys.exit(code)


def _secrets_and_debugging() -> tuple[Sequence[str], bool]:
    from hedgelock_ingest.settings import load_settings, secrets

    try:
        settings = load_settings()
    except SettingsInvalid:
        return (), False
    return secrets(settings), settings.monitoring_log_level == "DEBUG"
