"""The demo: exchange, broker and Dagster on one machine."""
