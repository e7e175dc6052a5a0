"""Who asks an HTTP API; what each function makes of it is for its own tests."""

from __future__ import annotations

from typing import Any

import pytest

from documents.callers import NamelessCaller, principal_of


@pytest.mark.parametrize(
    ("authorizer", "principal"),
    [
        ({"jwt": {"claims": {"sub": "alice"}}}, "alice"),
        ({"iam": {"userArn": "arn:aws:iam::1:user/alice", "cognitoIdentity": None}}, "arn:aws:iam::1:user/alice"),
        ({"iam": {"userArn": "arn:aws:sts::1:assumed-role/pool/x", "cognitoIdentity": {"identityId": "id"}}}, "id"),
        (None, None),
    ],
)
def test_a_caller_is_who_the_authorizer_says(authorizer: Any, principal: str | None) -> None:
    assert principal_of({} if authorizer is None else {"authorizer": authorizer}) == principal


@pytest.mark.parametrize(
    "authorizer", [{}, {"jwt": {"claims": {"sub": " "}}}, {"jwt": {"claims": {"sub": 7}}}, {"lambda": {"sub": "a"}}]
)
def test_a_caller_without_a_name_is_not_taken_for_nobody(authorizer: Any) -> None:
    with pytest.raises(NamelessCaller):
        principal_of({"authorizer": authorizer})
