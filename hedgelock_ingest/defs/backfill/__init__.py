"""The job that completes an hour of records from REST."""
