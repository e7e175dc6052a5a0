"""Spans of OpenTelemetry, in a program that traces itself; in any other one a look into a dictionary."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def span(name: str, **attributes: str | int | None) -> AbstractContextManager[Any]:
    """Yields the span, or None. The attributes are called `docprogress.…`; those that are None are left out."""
    # Whoever has a tracer provider has imported it. Where it is merely installed, its import would be wasted.
    tracer = getattr(sys.modules.get("opentelemetry.trace"), "get_tracer", None)
    if tracer is None:
        return nullcontext()
    known = {f"docprogress.{key}": value for key, value in attributes.items() if value is not None}
    started: AbstractContextManager[Any] = tracer("docprogress").start_as_current_span(
        f"docprogress.{name}", attributes=known
    )
    return started
