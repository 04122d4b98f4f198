"""
Health, readiness, statistics and metrics over HTTP.

The only package that imports FastAPI, uvicorn and prometheus_client. May import `status` and the layers below, not
`sandbox`.
"""
