"""Web pages of a running shard: health, readiness, statistics, metrics."""

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    generate_latest,
)
from starlette.types import ASGIApp, Receive, Scope, Send

from hedgelock_ingest import status
from hedgelock_ingest.service import Service
from hedgelock_ingest.web.metrics import StatisticsCollector

_UNAVAILABLE = 503


class _HeadAsGet:
    """Answers HEAD as GET; uvicorn sends the status and the headers without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send)


def make_app(service: Service) -> FastAPI:
    """Build the read-only web pages of one shard."""
    app = FastAPI(
        title="HedgeLock Ingest",
        summary=f"Shard {service.shard.name}: Bybit's data into Kafka, exactly once and in order.",
        version="1",
    )
    app.add_middleware(_HeadAsGet)
    registry = CollectorRegistry()
    registry.register(StatisticsCollector(lambda: status.statistics(service)))
    for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR):
        registry.register(collector)

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    @app.get("/health", responses={_UNAVAILABLE: {"model": status.Health}}, tags=["probes"])
    async def health(response: Response) -> status.Health:
        """503 only when the process cannot recover without a restart."""
        answer = status.health(service)
        if answer.status == "failed":
            response.status_code = _UNAVAILABLE
        return answer

    @app.get("/ready", responses={_UNAVAILABLE: {"model": status.Readiness}}, tags=["probes"])
    async def ready(response: Response) -> status.Readiness:
        """503 while Kafka or one topic accepts nothing, a served feed has no live line, or the journal is full."""
        answer = status.readiness(service)
        if answer.status == "not_ready":
            response.status_code = _UNAVAILABLE
        return answer

    @app.get("/stats", tags=["figures"])
    async def stats() -> status.Statistics:
        """Totals since the start, rates over ten seconds, latencies over one minute."""
        return status.statistics(service)

    @app.get("/metrics", response_class=PlainTextResponse, tags=["figures"])
    async def metrics() -> Response:
        """The statistics as Prometheus metrics."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app
