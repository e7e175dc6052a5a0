"""What an answer means. Does not prove what API Gateway really answers."""

from __future__ import annotations

import pytest

from docprogress.posting.http1 import Response
from docprogress.posting.verdict import Verdict, classify


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        (Response(200), Verdict.DELIVERED),
        (Response(204), Verdict.DELIVERED),
        (Response(410), Verdict.STALE),
        (Response(410, "GoneException"), Verdict.STALE),
        (Response(400, "GoneException"), Verdict.STALE),
        (Response(429), Verdict.THROTTLED),
        (Response(429, "LimitExceededException"), Verdict.THROTTLED),
        (Response(400, "ThrottlingException"), Verdict.THROTTLED),
        (Response(408), Verdict.UNAVAILABLE),
        (Response(500), Verdict.UNAVAILABLE),
        (Response(503, "GoneException"), Verdict.UNAVAILABLE),
        (Response(413), Verdict.REFUSED),
        (Response(403), Verdict.REFUSED),
        (Response(403, "ForbiddenException"), Verdict.REFUSED),
        (Response(403, "ExpiredTokenException"), Verdict.EXPIRED_CREDENTIALS),
        (
            Response(403, "", b'{"message":"The security token included in the request is expired"}'),
            Verdict.EXPIRED_CREDENTIALS,
        ),
        (Response(400, "BadRequestException"), Verdict.REFUSED),
        (Response(404), Verdict.REFUSED),
        (Response(300), Verdict.REFUSED),
        (Response(307), Verdict.REFUSED),
    ],
)
def test_an_answer_is_classified_by_its_status_and_where_that_is_open_by_its_name(
    response: Response, verdict: Verdict
) -> None:
    assert classify(response) is verdict
