"""The scheduled audit of the topics."""
