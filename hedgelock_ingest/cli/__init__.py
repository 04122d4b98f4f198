"""
The command `hedgelock-ingest`: parses arguments, loads the settings, calls the services.

May import every package.
"""
