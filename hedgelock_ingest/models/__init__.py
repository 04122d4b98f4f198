"""Published messages as pydantic models, the contract for consumers. Pure: imports nothing of ours but `errors`."""
