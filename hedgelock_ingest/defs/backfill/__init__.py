"""The job that completes an hour."""
