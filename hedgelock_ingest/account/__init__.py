"""
The account over REST: its key, snapshots and polls, and their comparison with the stream.

May import `pipeline` and the layers below.
"""
