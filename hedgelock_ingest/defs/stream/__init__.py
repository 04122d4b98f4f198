"""The streaming op, its supervisor, checks and reports."""
