"""Health, readiness, stats and metrics over HTTP: the only home of FastAPI."""
