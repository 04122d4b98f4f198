"""Commands for the sandbox: the demo, the simulated exchange, a Kafka broker."""

from pathlib import Path
from typing import Annotated

import typer

sandbox_app = typer.Typer(
    help="""
    Start a local substitute for Bybit or Kafka.

    Each prints one line of JSON with its addresses when it is ready, then stays until Ctrl-C or SIGTERM.
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
)


def demo(
    duration: Annotated[float | None, typer.Option(help="Seconds to run; without it, until Ctrl-C.", min=1)] = None,
    dagster: Annotated[
        bool, typer.Option(help="Run the stream and the polls under Dagster, with its web pages.")
    ] = True,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove the data of an earlier demo first.")] = False,
) -> None:
    """
    Run the complete system on this machine alone.

    A simulated Bybit, a real Kafka, the stream, and Dagster's web pages; needs no account and no key, and prints the
    addresses. The first start downloads Kafka, about 44 MB. Its data stay in .hedgelock/demo for the next start.
    """
    from hedgelock_ingest.sandbox.demo.demo import run_demo

    raise typer.Exit(run_demo(duration_s=duration, with_dagster=dagster, fresh=fresh))


@sandbox_app.command("exchange")
def sandbox_exchange(
    port: Annotated[int, typer.Option(help="0 takes a free port.", min=0, max=65535)] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same prices.")] = 1,
    rate: Annotated[
        float | None, typer.Option(help="Frames per second over all channels; without it Bybit's typical rate.", min=0)
    ] = None,
    symbols: Annotated[str, typer.Option(help="Symbols of both categories.")] = "BTCUSDT,ETHUSDT",
    recording: Annotated[
        Path | None, typer.Option("--replay", help="Send the frames of this file instead.", exists=True)
    ] = None,
    course: Annotated[
        str, typer.Option("--scenario", help="Course of prices against the loan: calm, margin-call or liquidation.")
    ] = "calm",
    over: Annotated[float, typer.Option(help="Seconds until the scenario's threshold is crossed.", min=0.1)] = 60.0,
    key: Annotated[
        str | None, typer.Option(help="Also print this API key of the account and its secret: read-only, trading, ...")
    ] = None,
    account_life: Annotated[
        float, typer.Option(help="Mean seconds between orders of the account; 0 places none.", min=0)
    ] = 3.0,
) -> None:
    """
    Simulate Bybit v5: WebSocket and REST on one port.

    \b
    Examples:
      hedgelock-ingest sandbox exchange --scenario margin-call --key read-only
      hedgelock-ingest sandbox exchange --port 9001
      BYBIT_PUBLIC_WS_URL=ws://127.0.0.1:9001/v5/public \\
      BYBIT_REST_URL=http://127.0.0.1:9001 hedgelock-ingest run
      curl http://127.0.0.1:9001/sandbox/faults -d '{"fault":"drop_lines","category":"linear"}'
    """
    from hedgelock_ingest.sandbox.exchange import Scenario, serve

    names = tuple(name.strip() for name in symbols.split(",") if name.strip())
    serve(
        Scenario(
            port=port,
            seed=seed,
            rate=rate,
            spot_symbols=names,
            linear_symbols=names,
            replay=recording,
            course=course,
            course_s=over,
            key=key,
            account_life_s=account_life or None,
        )
    )


@sandbox_app.command("kafka")
def sandbox_kafka(
    port: Annotated[int, typer.Option(help="0 takes a free port.", min=0, max=65535)] = 0,
    data_directory: Annotated[
        Path | None, typer.Option(help="Keep the data there; without it they are removed at exit.")
    ] = None,
) -> None:
    """Run a single-node Apache Kafka broker."""
    from hedgelock_ingest.sandbox.kafka import serve

    serve(port=port, data_directory=data_directory)
