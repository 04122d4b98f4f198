"""
The command `hedgelock-ingest`: parses arguments, loads the settings, calls the services.

The only package that imports typer. May import every package.
"""
