"""Reads the lines of an invoice: `{"invoice": "invoice-7", "lines": ["…", "…"]}`."""

from typing import Any

import docprogress

publisher = docprogress.connect()


def handler(event: dict[str, Any], _context: object) -> dict[str, int]:
    lines = event["lines"]
    with publisher.track(event["invoice"]) as tracker:
        tracker.start(total=len(lines))
        for line in lines:
            read(line)
            tracker.advance()
    return {"lines": len(lines)}


def read(line: str) -> None:
    """Where the work is done."""
    print(line)
