"""Health, readiness, statistics and metrics over HTTP; the only package that imports FastAPI."""
