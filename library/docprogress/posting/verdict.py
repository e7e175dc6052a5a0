"""What an answer of @connections means. No I/O.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html
"""

from __future__ import annotations

from enum import Enum, auto

from docprogress.posting.http1 import Response


class Verdict(Enum):
    DELIVERED = auto()
    STALE = auto()
    THROTTLED = auto()
    UNAVAILABLE = auto()
    EXPIRED_CREDENTIALS = auto()
    REFUSED = auto()  # and no retry cures it


_BY_STATUS = {408: Verdict.UNAVAILABLE, 410: Verdict.STALE, 429: Verdict.THROTTLED}
_BY_ERROR_TYPE = {"GoneException": Verdict.STALE, "ThrottlingException": Verdict.THROTTLED}


def classify(response: Response) -> Verdict:
    """Go by the status, which is always there, then by the error's name, which is not."""
    status = response.status
    if 200 <= status < 300:
        return Verdict.DELIVERED
    if status == 403:
        # The only refusal that new credentials cure. Its name is not always there, its sentence is.
        said = f"{response.error_type} {response.body.decode('utf-8', 'replace')}".lower()
        expired = "expiredtoken" in said or "security token included in the request is expired" in said
        return Verdict.EXPIRED_CREDENTIALS if expired else Verdict.REFUSED
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return Verdict.UNAVAILABLE
    return _BY_ERROR_TYPE.get(response.error_type, Verdict.REFUSED)
