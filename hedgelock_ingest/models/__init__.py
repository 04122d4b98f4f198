"""What we publish: pydantic models, the contract that consumers read. Pure: imports nothing of ours but `errors`."""
