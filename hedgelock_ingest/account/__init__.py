"""
The account over REST, beside the stream: its key, snapshots, polls, and the comparison of both.

May import `pipeline` and what is below.
"""
