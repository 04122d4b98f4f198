"""Tags that identify and limit runs."""

KIND_TAG = "hedgelock/kind"
"""Tag with the kind of a run, such as `stream` or `poll`."""


def tags_of(kind: str, *, longest_s: int) -> dict[str, str]:
    """
    Return the tags of a kind of run; `dagster.yaml` limits how many runs of a kind execute at once.

    Args:
        kind: Such as `poll`.
        longest_s: Seconds after which Dagster ends the run; otherwise a run of a lost machine would occupy its
            slot forever.
    """
    return {KIND_TAG: kind, "dagster/max_runtime": str(longest_s)}
