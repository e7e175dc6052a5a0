"""How much of its time a worker has left, and what watchers are told when that is up."""

from __future__ import annotations

from collections.abc import Callable

from docprogress.document import ErrorCode, Failure

# Left of a Lambda's time after delivery, to return and to flush its logs.
_RESERVED_SECONDS = 0.5
# A worker stops so long before its time is up, or at a fifth of its time if that is less: for the write of the end,
# its announcement, and a page that is longer than others.
_TIME_LIMIT_SECONDS = 20.0


class TimeLeft:
    """
    Args:
        remaining_seconds: how long the worker has left, now.
    """

    def __init__(self, remaining_seconds: Callable[[], float]) -> None:
        self._remaining_seconds = remaining_seconds
        self._all_seconds = remaining_seconds()

    @property
    def working_seconds(self) -> float:
        """Until the work has to stop."""
        return self._remaining_seconds() - min(_TIME_LIMIT_SECONDS, self._all_seconds / 5)

    @property
    def is_up(self) -> bool:
        return self.working_seconds <= 0

    def bounded(self, seconds: float) -> float:
        """So long, or for as long as the process will live."""
        return max(0.0, min(seconds, self._remaining_seconds() - _RESERVED_SECONDS))

    @property
    def failure(self) -> Failure:
        minutes = self._all_seconds / 60
        time_there_is = f"{minutes:.0f} minutes" if minutes >= 2 else f"{self._all_seconds:.0f} seconds"
        return Failure(
            f"The document takes longer than the {time_there_is} that there are for one. Split it into smaller ones.",
            ErrorCode.TIME_LIMIT_EXCEEDED,
        )
