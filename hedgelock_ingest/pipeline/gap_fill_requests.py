"""Checks of answers that fill gaps, and pauses after those that failed."""

from hedgelock_ingest.errors import FrameError, RestError, RestLimited, RestUnavailable
from hedgelock_ingest.pipeline.gap_fill_queue import GapFillTiming
from hedgelock_ingest.pipeline.ports import AnswerReceiver
from hedgelock_ingest.protocol.rest_messages import RestAnswer
from hedgelock_ingest.protocol.rest_rows import check_results


def checked(answer: RestAnswer, answers: AnswerReceiver) -> RestAnswer:
    """
    Return a valid answer; pass an invalid one on for its dead letter.

    Raises:
        RestUnavailable: The answer is invalid.
    """
    try:
        check_results(answer)
    except FrameError as error:
        answers.answer_received(answer)
        raise RestUnavailable(f"Bybit's answer about {answer.part} cannot be decoded: {error}") from error
    return answer


def pause_s(error: RestError, retry_s: float, timing: GapFillTiming) -> float:
    """Return the seconds until the next attempt, `retry_s` after a failure that may be short."""
    if isinstance(error, RestLimited):  # while the breaker is open, which another request may close at any time
        return min(error.wait_s, timing.limited_retry_s)
    return retry_s if error.transient else timing.refused_retry_s
