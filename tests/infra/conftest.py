"""The graphs of the real program, made once a session, and the functions packaged once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from infra.document_kinds import KIND
from infra.lambda_package import lambda_package
from tests.infra.samples import KMS_KEY_ARN
from tests.mock_engine import Graph, run_main

# Every component that a stack can ask for, at once.
EVERYTHING = {
    "authorization": "JWT",
    "createUserPool": "true",
    "userPoolCallbackUrls": '["https://app.example.com/"]',
    "userPoolDomainPrefix": "acme-documents",
    "allowedOrigins": '["https://app.example.com"]',
    "fanOut": "stream",
    "documentPipeline": "true",
    "documentKinds": f'["{KIND.example}"]',
    "documentUploads": "true",
    "documentResults": "true",
    "site": "true",
    "domainName": "live.example.com",
    "documentsDomainName": "documents.example.com",
    "hostedZoneId": "Z0123456789ABCDEFGHIJ",
    "dualStack": "true",
    "statusApi": "true",
    "events": "true",
    "kmsKeyArn": KMS_KEY_ARN,
    "alarmEmail": "on-call@example.com",
    "aws:region": KMS_KEY_ARN.split(":")[3],
}


@cache
def graph_of(stack: str) -> Graph:
    if stack == "prod":
        # It comes without a decision on who may connect, and is refused as long as there is none.
        return run_main(stack, {"authorization": "NONE"})
    return run_main("dev", EVERYTHING) if stack == "everything" else run_main(stack)


@pytest.fixture(scope="session", autouse=True)
def packaged_once() -> Iterator[None]:
    """The same function is in hundreds of graphs, and reading its wheels takes longer than the rest of a graph."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infra.lambda_function.lambda_package", cache(lambda_package))
        yield


@pytest.fixture(params=["dev", "prod", "local", "everything"])
def graph(request: pytest.FixtureRequest) -> Graph:
    """The whole program, as each of its stacks and as one that has every component."""
    return graph_of(request.param)


@pytest.fixture
def dev() -> Graph:
    return graph_of("dev")


@pytest.fixture
def prod() -> Graph:
    return graph_of("prod")


@pytest.fixture
def local() -> Graph:
    return graph_of("local")


@pytest.fixture
def everything() -> Graph:
    return graph_of("everything")
