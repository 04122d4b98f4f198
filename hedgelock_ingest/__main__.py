"""`python -m hedgelock_ingest` is the same as `hedgelock-ingest`."""

from hedgelock_ingest.cli.app import main

if __name__ == "__main__":
    main()
