"""What the rules of reporting need of a table."""

from __future__ import annotations

from typing import Protocol

from docprogress.document import Beginning, DocumentState, Run, Update


class StateStore(Protocol):
    """What the rules need of a table. Every method may raise StoreUnavailable."""

    def begin(self, run: Run, beginning: Beginning) -> DocumentState:
        """Take a document up: a new run, or the next attempt at one that failed or was not written for so long.

        Returns:
            The state, pending, with its attempt and how many are left.

        Raises:
            AlreadyProcessed, BeingProcessed: see there.
            Superseded: a run of a higher order has begun, or this run was replaced by another.
        """
        ...

    def write(self, run: Run, update: Update, *, not_within_seconds: float = 0.0) -> DocumentState | None:
        """Publish a state. None, and nothing written, when the document was published within so many seconds,
        by whichever worker. Raises Superseded, or Cancelled."""
        ...

    def heartbeat(self, run: Run, *, owner: str | None = None) -> int:
        """Note that the run is alive, and whose the document is if that is given.

        Returns the attempt that is on. Raises Superseded, or Cancelled.
        """
        ...

    def leave(self, run: Run, worker: str) -> None:
        """Forget the tally of a worker whose every page is known to be counted."""
        ...
