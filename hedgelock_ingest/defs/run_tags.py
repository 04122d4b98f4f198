"""Tags of runs that are not the stream."""

from hedgelock_ingest.defs.stream.jobs import KIND_TAG


def tags_of(kind: str, *, longest_s: int) -> dict[str, str]:
    """
    Give the tags of a kind of runs; `dagster.yaml` says how many of a kind may run at once.

    Args:
        kind: Such as `poll`.
        longest_s: After so many seconds Dagster ends the run: when its machine was lost nobody else does, and it
            would take the place of another one for ever.
    """
    return {KIND_TAG: kind, "dagster/max_runtime": str(longest_s)}
