"""
Translate journalled frames and the saved state into records and the next state.

Pure. May import `models`, `protocol` and `errors`.
"""
