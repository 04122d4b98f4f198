# docker build -t hedgelock-ingest .
# docker run -e KAFKA_BOOTSTRAP_SERVERS=kafka:9092 -v journal:/var/lib/hedgelock -p 8000:8000 --stop-timeout 20 hedgelock-ingest
FROM python:3.12-slim AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/hedgelock
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY hedgelock_ingest ./hedgelock_ingest
RUN /opt/hedgelock/bin/pip install --constraint constraints.txt ".[postgres]"

FROM python:3.12-slim

# The journal is what must survive a container: mount a volume there, one that no other container uses.
RUN useradd --system --uid 10001 --home-dir /var/lib/hedgelock --create-home hedgelock \
    && install -d -o hedgelock -g hedgelock -m 0700 /var/lib/hedgelock/journal
COPY --from=build /opt/hedgelock /opt/hedgelock
ENV PATH=/opt/hedgelock/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    JOURNAL_DIRECTORY=/var/lib/hedgelock/journal \
    MONITORING_HOST=0.0.0.0 \
    MONITORING_PORT=8000
WORKDIR /var/lib/hedgelock
USER 10001
VOLUME /var/lib/hedgelock
EXPOSE 8000

# Unhealthy means that only a restart helps; a temporary failure shows in /ready. Not through a proxy of the environment.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ[\"MONITORING_PORT\"]}/health', timeout=4)"]

# A stop drains for STOP_TIMEOUT seconds, 10 by default: give the container more than that.
STOPSIGNAL SIGTERM
ENTRYPOINT ["hedgelock-ingest"]
CMD ["run"]
