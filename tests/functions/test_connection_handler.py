"""The handler of the WebSocket routes, with events as API Gateway documents them and a table in memory.

Not proved here: that the routes lead here, that replies reach the client (both are graph tests), the table's
own rules (test_store), and who gets past the authorizer (test_connect_authorizer).
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from docprogress.document import Beginning, Failure, Run, Status, Update
from tests.functions.fakes import InMemoryStore, started
from tests.wire import from_server

EVENTS = Path(__file__).with_name("events")
FUNCTIONS = Path(__file__).parents[2] / "functions"
CONNECTION_ID = "S3cMxdpkDoECFkQ="
CONNECTED_AT = 1_707_502_303_419
NOW = 1_707_502_305.0


class Sandbox:
    """A Lambda sandbox with the handler freshly imported, and what it has logged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: InMemoryStore) -> None:
        monkeypatch.delitem(sys.modules, "connection_handler", raising=False)
        self._module: ModuleType = importlib.import_module("connection_handler")
        self.store = store
        self.built = 0
        self._log = io.StringIO()
        self._log_handler = logging.StreamHandler(self._log)
        self._log_handler.setFormatter(self._module.logger.registered_formatter)
        self._module.logger.addHandler(self._log_handler)
        for adapter in ("Connections", "States"):
            monkeypatch.setattr(self._module, adapter, self._build)

    def _build(self, *_: object, **__: object) -> InMemoryStore:
        self.built += 1
        return self.store

    def invoke(self, event: dict[str, Any]) -> dict[str, Any]:
        reply: dict[str, Any] = self._module.handler(event, object())
        return reply

    def say(self, body: str | None, route_key: str = "progress", **context: Any) -> Any:
        """The message that a client is answered."""
        event = recorded("message", routeKey=route_key, **context)
        event["body"] = body
        reply = self.invoke(event)
        assert reply["statusCode"] == 200, "any other status closes nothing and tells the client nothing"
        return from_server(json.loads(reply["body"]))

    def ask(self, document_id: str = "invoice-7", **fields: Any) -> Any:
        return self.say(json.dumps({"action": "progress", "docId": document_id, **fields}))

    @property
    def log(self) -> str:
        return self._log.getvalue()

    def close(self) -> None:
        logging.getLogger(self._module.logger.name).removeHandler(self._log_handler)


def recorded(name: str, **context: Any) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text())
    event["requestContext"] |= context
    return event


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    # The logger of this name is this function's alone: another's keys, such as `document_id`, stay in its lines.
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "connection-handler")
    monkeypatch.setenv("TABLE_NAME", "progress")
    monkeypatch.setenv("AUTHORIZATION", "NONE")
    monkeypatch.setenv("CONNECTION_MAX_AGE_SECONDS", "7200")
    monkeypatch.delenv("ALLOWED_ORIGINS", raising=False)
    sandbox = Sandbox(monkeypatch, InMemoryStore(lambda: NOW))
    yield sandbox
    sandbox.close()


@pytest.fixture
def connected(sandbox: Sandbox) -> Sandbox:
    assert sandbox.invoke(recorded("connect"))["statusCode"] == 200
    sandbox.store.calls.clear()
    return sandbox


def begin(store: InMemoryStore, owner: str | None = None, run_id: str = "r") -> None:
    started(store, "invoice-7", run_id=run_id, total=9, owner=owner)


# --- the sandbox ---


def test_importing_the_handler_needs_no_environment() -> None:
    subprocess.run(
        [sys.executable, "-c", "import connection_handler, document_processor"],
        cwd=FUNCTIONS,
        env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        | {"PYTHONPATH": str(FUNCTIONS.parent / "library")},
        check=True,
        timeout=100,
    )


def test_the_service_is_built_once_in_a_sandbox(sandbox: Sandbox) -> None:
    for _ in range(3):
        sandbox.invoke(recorded("connect"))

    assert sandbox.built == 2, "connections and states, once each"


def test_a_service_that_cannot_be_built_is_an_internal_error(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TABLE_NAME")

    assert sandbox.ask()["errorCode"] == "INTERNAL_ERROR"
    assert "TABLE_NAME is not set" in sandbox.log


# --- $connect ---


def test_a_connection_is_kept_until_the_gateway_would_end_it(sandbox: Sandbox) -> None:
    assert sandbox.invoke(recorded("connect")) == {"statusCode": 200}

    connection = sandbox.store.connections[CONNECTION_ID]
    assert connection.expires_at == CONNECTED_AT // 1000 + 7200, "TTL is in seconds, connectedAt in milliseconds"
    assert connection.principal_id is None
    assert sandbox.store.connected_at[CONNECTION_ID] == CONNECTED_AT


@pytest.mark.parametrize(("max_age_seconds", "lasts"), [("60", 60), (None, 7200)])
def test_a_stack_may_end_connections_earlier_than_the_gateway(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, max_age_seconds: str | None, lasts: int
) -> None:
    monkeypatch.delenv("CONNECTION_MAX_AGE_SECONDS")
    if max_age_seconds is not None:
        monkeypatch.setenv("CONNECTION_MAX_AGE_SECONDS", max_age_seconds)
    sandbox.invoke(recorded("connect"))

    assert sandbox.store.connections[CONNECTION_ID].expires_at == CONNECTED_AT // 1000 + lasts


def test_a_connection_keeps_the_principal_that_the_authorizer_found(sandbox: Sandbox) -> None:
    sandbox.invoke(recorded("connect", authorizer={"principalId": "alice", "integrationLatency": 12}))

    assert sandbox.store.connections[CONNECTION_ID].principal_id == "alice"


def test_a_connection_ends_with_its_token(sandbox: Sandbox) -> None:
    # API Gateway hands an authorizer's context on as strings.
    soon = CONNECTED_AT // 1000 + 60
    sandbox.invoke(recorded("connect", authorizer={"principalId": "alice", "expires_at": str(soon)}))

    assert sandbox.store.connections[CONNECTION_ID].expires_at == soon


@pytest.mark.parametrize("header", ["Sec-WebSocket-Protocol", "sec-websocket-protocol", "SEC-WEBSOCKET-PROTOCOL"])
@pytest.mark.parametrize("offered", ["docprogress", "docprogress, other", " docprogress ,other", "eyJ.a.b,docprogress"])
def test_our_subprotocol_alone_is_echoed(sandbox: Sandbox, header: str, offered: str) -> None:
    event = recorded("connect")
    event["headers"][header] = offered

    assert sandbox.invoke(event) == {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "docprogress"}}


@pytest.mark.parametrize("headers", [None, {}, *({"Sec-WebSocket-Protocol": each} for each in ("", "eyJ.a.b", "a, b"))])
def test_no_subprotocol_is_named_to_a_client_that_did_not_offer_ours(
    sandbox: Sandbox, headers: dict[str, str] | None
) -> None:
    assert sandbox.invoke(recorded("connect") | {"headers": headers}) == {"statusCode": 200}


def test_only_pages_of_allowed_origins_connect(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOWED_ORIGINS", "https://app.example.com https://other.example.com")
    allowed = recorded("connect")
    strange = recorded("connect")
    strange["headers"]["Origin"] = "https://evil.example.com"
    silent = recorded("connect")
    del silent["headers"]["Origin"]

    assert [sandbox.invoke(event)["statusCode"] for event in (strange, silent)] == [403, 403]
    assert sandbox.store.connections == {}
    lines = lines_of(sandbox)
    assert {line["message"] for line in lines} == {"Connection refused"}, "the saved query looks for these words"
    assert [(line["reason"], line.get("origin"), line["ConnectionsRefused"]) for line in lines] == [
        ("origin", "https://evil.example.com", 1),
        ("origin", None, 1),
    ]
    assert sandbox.invoke(allowed)["statusCode"] == 200


def test_a_connection_that_cannot_be_kept_is_refused(sandbox: Sandbox) -> None:
    fail(sandbox, "add_connection")

    assert sandbox.invoke(recorded("connect")) == {"statusCode": 500}
    assert "table-secret" in sandbox.log


# --- $disconnect ---


def test_a_connection_that_ends_is_forgotten_with_its_subscriptions(connected: Sandbox) -> None:
    connected.ask()
    assert connected.store.subscriptions

    assert connected.invoke(recorded("disconnect"))["statusCode"] == 200
    assert connected.store.connections == {}
    assert connected.store.subscriptions == {}


def test_a_disconnect_that_fails_is_logged(connected: Sandbox) -> None:
    fail(connected, "remove_connection")

    assert "body" not in connected.invoke(recorded("disconnect"))
    assert "table-secret" in connected.log


# --- progress ---


def test_a_document_nobody_has_started_is_pending_and_the_subscription_stands(connected: Sandbox) -> None:
    assert connected.ask() == {"status": "pending", "docId": "invoice-7"}

    (subscription,) = connected.store.subscriptions.values()
    assert subscription.connection_id == CONNECTION_ID
    assert subscription.expires_at == CONNECTED_AT // 1000 + 7200


def test_a_document_under_way_is_answered_as_it_stands(connected: Sandbox) -> None:
    begin(connected.store)
    state = connected.store.write(Run("invoice-7", "r"), Update(status=Status.PROGRESS, pages=4))

    assert connected.ask() == {
        "status": "progress",
        "docId": "invoice-7",
        "pagesProcessed": 4,
        "totalPages": 9,
        "sequence": state and state.sequence,
    }


def test_a_document_that_was_taken_up_and_not_started_is_pending(connected: Sandbox) -> None:
    run = Run("invoice-7", "r")
    connected.store.begin(run, Beginning("w", 45.0))

    assert connected.ask() == {"status": "pending", "docId": "invoice-7"}
    connected.store.connections[CONNECTION_ID] = connected.store.connections[CONNECTION_ID]._replace(principal_id="eve")
    assert connected.ask()["errorCode"] == "FORBIDDEN", "whose it is is not known before it starts"


def test_a_document_that_failed_is_answered_with_its_error(connected: Sandbox) -> None:
    begin(connected.store)
    failure = Failure("The file is empty.")
    state = connected.store.write(Run("invoice-7", "r"), Update(status=Status.ERROR, failure=failure))

    assert connected.ask() == {
        "status": "error",
        "errorCode": "PROCESSING_FAILED",
        "message": "The file is empty.",
        "docId": "invoice-7",
        "recoverable": False,
        "sequence": state and state.sequence,
    }


def test_no_update_falls_between_the_subscription_and_the_snapshot(connected: Sandbox) -> None:
    def start_when_subscribed(method: str) -> None:
        # A start right after the subscription was written: its own fan-out may miss it, the snapshot may not.
        if method == "read" and connected.store.subscriptions and not connected.store.published:
            begin(connected.store)

    connected.store.before = start_when_subscribed

    assert connected.ask()["status"] == "processing_started"
    calls = connected.store.calls
    assert "read" in calls[calls.index("subscribe") :], "the snapshot is read after the subscription is written"


def test_asking_without_subscribing_leaves_no_subscription(connected: Sandbox) -> None:
    begin(connected.store)

    assert connected.ask(subscribe=False)["status"] == "processing_started"
    assert connected.store.subscriptions == {}


def test_a_subscription_can_be_ended(connected: Sandbox) -> None:
    connected.ask()
    connected.ask("other")
    connected.ask(subscribe=False)

    assert [document for document, _ in connected.store.subscriptions] == ["other"]


def test_a_subscription_can_be_ended_when_the_document_has_become_somebody_elses(sandbox: Sandbox) -> None:
    sandbox.invoke(recorded("connect", authorizer={"principalId": "alice"}))
    begin(sandbox.store, owner="alice")
    sandbox.ask()
    begin(sandbox.store, owner="bob", run_id="another")

    assert sandbox.ask(subscribe=False)["errorCode"] == "FORBIDDEN"
    assert sandbox.store.subscriptions == {}


def test_asking_again_renews_the_same_subscription(connected: Sandbox) -> None:
    for _ in range(3):
        connected.ask()

    assert len(connected.store.subscriptions) == 1


# --- who may watch ---


def test_the_owner_watches_and_another_principal_is_refused(sandbox: Sandbox) -> None:
    begin(sandbox.store, owner="alice")
    sandbox.invoke(recorded("connect", authorizer={"principalId": "alice"}))
    assert sandbox.ask()["status"] == "processing_started"

    sandbox.invoke(recorded("connect", connectionId="B=", authorizer={"principalId": "bob"}))
    refused = sandbox.say('{"action":"progress","docId":"invoice-7"}', connectionId="B=")

    assert (refused["errorCode"], refused["docId"]) == ("FORBIDDEN", "invoice-7")
    assert refused["message"] == "You may not watch this document."
    assert {connection for _, connection in sandbox.store.subscriptions} == {CONNECTION_ID}


@pytest.mark.parametrize("request_", [{}, {"subscribe": False}, {"action": "cancel"}])
def test_a_document_of_another_one_is_refused_as_one_that_does_not_exist(
    sandbox: Sandbox, request_: dict[str, Any]
) -> None:
    begin(sandbox.store, owner="alice")
    sandbox.invoke(recorded("connect", authorizer={"principalId": "bob"}))

    def refused(document_id: str) -> tuple[Any, list[str]]:
        sandbox.store.calls.clear()
        answer = sandbox.ask(document_id, **request_)
        return answer | {"docId": ""}, list(sandbox.store.calls)

    exists, unknown = refused("invoice-7"), refused("invoice-8")

    assert exists == unknown, "neither the words nor the work may tell that the document is there"
    assert exists[0]["errorCode"] == "FORBIDDEN"
    assert exists[0]["message"] == f"You may not {request_.get('action', 'watch')} this document."
    assert "read" not in exists[1], "a whole state takes longer than none"


@pytest.mark.parametrize("mode", ["JWT", "AWS_IAM", "", None])
@pytest.mark.parametrize("caller", [{}, {"authorizer": {"principalId": " "}}, {"identity": {"userArn": ""}}])
def test_nobody_without_a_name_connects_unless_the_stack_says_that_it_has_no_authorization(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, mode: str | None, caller: dict[str, Any]
) -> None:
    if mode is None:
        monkeypatch.delenv("AUTHORIZATION")
    else:
        monkeypatch.setenv("AUTHORIZATION", mode)

    assert sandbox.invoke(recorded("connect", **caller)) == {"statusCode": 403}
    assert sandbox.store.connections == {}
    assert '"reason":"no_principal"' in sandbox.log


def test_a_connection_of_before_the_stack_had_an_authorization_has_to_connect_again(
    connected: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(connected.store)
    monkeypatch.setenv("AUTHORIZATION", "JWT")
    later = Sandbox(monkeypatch, connected.store)

    assert [later.ask()["recoverable"], cancel(later)["recoverable"]] == [True, True]
    later.close()


@pytest.mark.parametrize(("shared", "answer"), [("true", "processing_started"), ("false", "error"), ("1", "error")])
def test_a_document_without_an_owner_is_for_those_with_a_name_only_where_documents_are_shared(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, shared: str, answer: str
) -> None:
    monkeypatch.setenv("AUTHORIZATION", "JWT")
    monkeypatch.setenv("SHARED_DOCUMENTS", shared)
    sandbox.invoke(recorded("connect", authorizer={"principalId": "alice"}))
    begin(sandbox.store)

    assert sandbox.ask()["status"] == answer
    assert sandbox.ask("unknown")["errorCode"] == "FORBIDDEN"
    assert cancel(sandbox)["errorCode"] == "FORBIDDEN", "to be shown a document is not to own it"


def test_a_private_document_that_starts_while_its_name_is_subscribed_is_not_shown(connected: Sandbox) -> None:
    def start_when_subscribed(method: str) -> None:
        if method == "read" and connected.store.subscriptions and not connected.store.published:
            begin(connected.store, owner="alice")

    connected.store.before = start_when_subscribed

    answer = connected.ask()

    assert answer["status"] == "error"
    assert answer["errorCode"] == "FORBIDDEN"


def test_a_connection_that_nobody_knows_may_watch_nothing_until_it_connects_again(sandbox: Sandbox) -> None:
    refused = sandbox.ask()

    assert (refused["errorCode"], refused["recoverable"]) == ("FORBIDDEN", True)
    assert "sequence" not in refused, "it says nothing about the document"
    assert sandbox.store.subscriptions == {}


def test_a_client_gone_wild_is_stopped_and_told(connected: Sandbox) -> None:
    answers = [connected.ask(f"document-{number}") for number in range(150)]

    refused = [answer for answer in answers if answer["status"] == "error"]
    assert {answer["errorCode"] for answer in refused} == {"TOO_MANY_SUBSCRIPTIONS"}
    assert refused[0]["docId"] == "document-100"
    assert "100 documents" in refused[0]["message"]
    assert len(connected.store.subscriptions) == 150 - len(refused)
    assert connected.ask("document-0")["status"] == "pending", "what it watches already it may ask for again"


@pytest.mark.parametrize("request_", [{}, {"subscribe": False}, {"action": "cancel"}])
@pytest.mark.parametrize("principal", [None, "bob"], ids=["not connected", "not the owner"])
def test_a_refusal_names_the_document_that_it_is_about(
    sandbox: Sandbox, request_: dict[str, Any], principal: str | None
) -> None:
    begin(sandbox.store, owner="alice")
    if principal is not None:
        sandbox.invoke(recorded("connect", authorizer={"principalId": principal}))

    assert sandbox.ask(**request_)["docId"] == "invoice-7", "a page may have asked for several"


# --- $default ---


@pytest.mark.parametrize("route_key", ["$default", "ping", "progress"])
def test_a_ping_is_answered_with_a_pong_and_costs_no_read(connected: Sandbox, route_key: str) -> None:
    assert connected.say('{"action":"ping"}', route_key) == {"status": "pong"}
    assert connected.store.calls == []


@pytest.mark.parametrize(
    ("seconds", "authorizer", "has_expired"),
    [
        (7199, {}, False),
        (7200, {}, True),
        (99, {"expires_at": str(CONNECTED_AT // 1000 + 100)}, False),
        (100, {"expires_at": str(CONNECTED_AT // 1000 + 100)}, True),
        (7200, {"expires_at": str(CONNECTED_AT // 1000 + 9000)}, True),
    ],
)
def test_a_ping_over_an_expired_connection_is_told_so_and_costs_no_read_either(
    connected: Sandbox, seconds: int, authorizer: dict[str, str], has_expired: bool
) -> None:
    asked_at = (CONNECTED_AT // 1000 + seconds) * 1000
    answer = connected.say('{"action":"ping"}', "$default", requestTimeEpoch=asked_at, authorizer=authorizer)
    expired = {
        "status": "error",
        "errorCode": "FORBIDDEN",
        "message": "The connection has expired. Connect again.",
        "recoverable": True,
    }
    assert answer == (expired if has_expired else {"status": "pong"})
    assert connected.store.calls == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("hello", "INVALID_MESSAGE"),
        (None, "INVALID_MESSAGE"),
        ("[]", "INVALID_MESSAGE"),
        ('{"action":"progress"}', "INVALID_MESSAGE"),
        ('{"action":"subscribe"}', "UNKNOWN_ACTION"),
        ('{"action":"$connect"}', "UNKNOWN_ACTION"),
        ('{"action":"$disconnect"}', "UNKNOWN_ACTION"),
    ],
)
def test_what_cannot_be_served_is_answered_with_a_code(connected: Sandbox, body: str | None, code: str) -> None:
    answer = connected.say(body, "$default")

    assert (answer["status"], answer["errorCode"], answer["recoverable"]) == ("error", code, False)
    assert "sequence" not in answer
    assert connected.store.calls == []


@pytest.mark.parametrize("route_key", ["$connect", "$disconnect"])
def test_a_message_is_a_message_whatever_route_its_action_names(connected: Sandbox, route_key: str) -> None:
    answer = connected.say(json.dumps({"action": route_key}), route_key)

    assert answer["errorCode"] == "UNKNOWN_ACTION"
    assert connected.store.connections.keys() == {CONNECTION_ID}
    assert connected.store.calls == []


def test_a_message_without_a_body_is_answered(connected: Sandbox) -> None:
    event = recorded("message", routeKey="$default")
    del event["body"]

    assert json.loads(connected.invoke(event)["body"])["errorCode"] == "INVALID_MESSAGE"


# --- faults ---


def fail(sandbox: Sandbox, method: str) -> None:
    def before(called: str) -> None:
        if called == method:
            raise LookupError("table-secret at arn:aws:dynamodb:eu-west-1:123456789012:table/progress")

    sandbox.store.before = before


@pytest.mark.parametrize("method", ["read", "subscribe"])
def test_a_client_hears_of_a_fault_and_nothing_about_it(connected: Sandbox, method: str) -> None:
    fail(connected, method)
    event = recorded("message")
    reply = connected.invoke(event)

    answer = json.loads(reply["body"])
    assert reply["statusCode"] == 200
    assert answer.keys() == {"status", "errorCode", "message", "recoverable", "docId"}
    assert answer["docId"] == json.loads(event["body"])["docId"], "the client asks for this document again"
    assert (answer["status"], answer["errorCode"], answer["recoverable"]) == ("error", "INTERNAL_ERROR", True)
    assert answer["message"] == "The server failed. Try again."
    for hint in ("secret", "arn:", "LookupError", "Traceback", "File "):
        assert hint not in reply["body"]


def test_a_fault_is_logged_with_its_exception_and_its_connection(connected: Sandbox) -> None:
    fail(connected, "read")
    connected.ask()

    (line,) = [json.loads(line) for line in connected.log.splitlines() if '"ERROR"' in line]
    assert (line["connection_id"], line["document_id"], line["route_key"]) == (CONNECTION_ID, "invoice-7", "progress")
    assert line["message"] == "Request failed", "docs/monitoring.md says what it means"
    assert "table-secret" in line["exception"]
    assert "Traceback" in line["exception"]


def test_each_decision_is_a_line_that_says_of_which_request_connection_and_principal(sandbox: Sandbox) -> None:
    alice = {"principalId": "alice"}
    sandbox.invoke(recorded("connect", authorizer=alice))
    sandbox.say('{"action":"progress","docId":"unknown"}', authorizer=alice)
    sandbox.say("no json", authorizer=alice)
    sandbox.say('{"action":"ping"}', authorizer=alice)
    sandbox.invoke(recorded("disconnect", authorizer=alice))

    lines = [json.loads(line) for line in sandbox.log.splitlines()]
    assert [line["message"] for line in lines] == ["Connected", "Request refused", "Request refused", "Disconnected"]
    assert lines[1]["document_id"] == "unknown"
    assert lines[3]["code"] == recorded("disconnect")["requestContext"]["disconnectStatusCode"]
    for line in lines:
        assert (line["connection_id"], line["principal_id"]) == (CONNECTION_ID, "alice")
        assert line["request_id"], "by it the line in the access log is found"


def test_what_a_client_says_is_not_logged(connected: Sandbox) -> None:
    connected.say('{"action":"progress","docId":"x","token":"bearer-secret"}')
    connected.say('{"action":"bearer-secret"}')
    connected.say("bearer-secret")
    fail(connected, "read")
    connected.say('{"action":"progress","docId":"x","token":"bearer-secret"}')

    assert "bearer-secret" not in connected.log


def test_a_token_offered_as_a_subprotocol_is_not_logged(sandbox: Sandbox) -> None:
    event = recorded("connect")
    event["headers"]["Sec-WebSocket-Protocol"] = "docprogress, bearer-secret"
    sandbox.invoke(event)
    fail(sandbox, "add_connection")
    sandbox.invoke(event)

    assert "bearer-secret" not in sandbox.log


# --- cancel ---


def cancel(sandbox: Sandbox, document_id: str = "invoice-7") -> Any:
    # API Gateway has no route of this action, so it comes by the default one.
    return sandbox.say(json.dumps({"action": "cancel", "docId": document_id}), route_key="$default")


CANCELLED = {
    "status": "error",
    "errorCode": "CANCELLED",
    "message": "The document was cancelled.",
    "recoverable": False,
}


def test_without_authorization_anyone_may_cancel_a_document_that_is_under_way(connected: Sandbox) -> None:
    begin(connected.store)
    answer = cancel(connected)

    assert {**answer, **CANCELLED, "docId": "invoice-7"} == answer
    assert connected.ask() == answer


def test_a_document_that_nobody_has_started_can_be_cancelled(connected: Sandbox) -> None:
    answer = cancel(connected)

    assert {**answer, **CANCELLED} == answer


def test_a_document_that_has_ended_stays_as_it_ended(connected: Sandbox) -> None:
    begin(connected.store)
    connected.store.write(Run("invoice-7", "r"), Update(status=Status.COMPLETE))

    assert cancel(connected)["status"] == "processing_complete"


def test_a_document_that_is_cancelled_twice_has_one_end(connected: Sandbox) -> None:
    begin(connected.store)

    assert cancel(connected) == cancel(connected)


@pytest.mark.parametrize("owner", ["bob", None])
def test_a_document_is_cancelled_by_its_owner_alone(sandbox: Sandbox, owner: str | None) -> None:
    sandbox.invoke(recorded("connect", authorizer={"principalId": "alice"}))
    begin(sandbox.store, owner=owner)
    refused = cancel(sandbox)
    assert (refused["errorCode"], refused["recoverable"]) == ("FORBIDDEN", False)
    assert cancel(sandbox, "unknown")["errorCode"] == "FORBIDDEN", "in the same words, known or not"
    begin(sandbox.store, owner="alice", run_id="r2")

    assert cancel(sandbox)["errorCode"] == "CANCELLED"


@pytest.mark.parametrize("becomes", ["another's", "gone"])
def test_a_document_that_stops_being_the_callers_while_it_is_cancelled_is_not_shown(
    sandbox: Sandbox, becomes: str
) -> None:
    sandbox.invoke(recorded("connect", authorizer={"principalId": "alice"}))
    begin(sandbox.store, owner="alice")

    def meanwhile(method: str) -> None:
        if method == "cancel":
            sandbox.store.before = lambda _: None
            if becomes == "gone":
                sandbox.store.remove("invoice-7")
            else:
                begin(sandbox.store, owner="bob", run_id="r2")

    sandbox.store.before = meanwhile

    assert cancel(sandbox) == {
        "status": "error",
        "errorCode": "FORBIDDEN",
        "message": "You may not cancel this document.",
        "docId": "invoice-7",
        "recoverable": False,
    }


def test_a_connection_that_has_expired_cancels_nothing(sandbox: Sandbox) -> None:
    begin(sandbox.store)

    assert cancel(sandbox)["recoverable"] is True
    assert sandbox.store.calls.count("cancel") == 0


def test_a_stack_may_forbid_cancelling(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANCELLATION", "false")
    sandbox.invoke(recorded("connect"))
    begin(sandbox.store)

    assert cancel(sandbox)["errorCode"] == "FORBIDDEN"


def test_a_message_that_names_no_document_cancels_nothing(connected: Sandbox) -> None:
    assert connected.say('{"action":"cancel"}', route_key="$default")["errorCode"] == "INVALID_MESSAGE"


# --- who it is ---


@pytest.mark.parametrize(
    ("identity", "principal"),
    [
        ({"userArn": "arn:aws:iam::1:user/alice", "cognitoIdentityId": None}, "arn:aws:iam::1:user/alice"),
        (
            {"userArn": "arn:aws:sts::1:assumed-role/pool/CognitoIdentity", "cognitoIdentityId": "eu:1"},
            "eu:1",
        ),
    ],
)
def test_a_connection_signed_with_iam_belongs_to_its_caller(
    sandbox: Sandbox, identity: dict[str, str | None], principal: str
) -> None:
    sandbox.invoke(recorded("connect", identity=identity))
    begin(sandbox.store, owner=principal)

    assert sandbox.store.connections[CONNECTION_ID].principal_id == principal
    assert sandbox.ask()["status"] == "processing_started"


def test_a_private_document_that_starts_while_its_name_is_subscribed_is_not_left_subscribed(connected: Sandbox) -> None:
    def becomes_private(method: str) -> None:
        if method == "subscribe":
            connected.store.before = lambda _: None
            begin(connected.store, owner="alice")

    connected.store.before = becomes_private

    assert connected.ask()["errorCode"] == "FORBIDDEN"
    assert connected.store.subscriptions == {}


def test_who_watches_what_is_logged(sandbox: Sandbox) -> None:
    sandbox.invoke(recorded("connect", authorizer={"principalId": "alice"}))
    begin(sandbox.store, owner="alice")
    sandbox.ask()
    sandbox.ask(subscribe=False)
    cancel(sandbox)

    lines = [line for line in lines_of(sandbox) if "document_id" in line]
    assert [(line["message"], line["principal_id"], line["document_id"], line.get("status")) for line in lines] == [
        ("Subscribed", "alice", "invoice-7", None),
        ("Unsubscribed", "alice", "invoice-7", None),
        ("Cancelled", "alice", "invoice-7", "error"),
    ]


_FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_frames = (
    st.text()
    | _json.map(json.dumps)
    | st.fixed_dictionaries(
        {"action": st.sampled_from(["progress", "ping", "$connect"]) | st.text()},
        optional={"docId": st.text() | _json, "subscribe": st.booleans() | _json},
    ).map(json.dumps)
)


@_FUZZ
@given(_frames)
def test_whatever_a_client_says_it_gets_an_answer_of_the_protocol(connected: Sandbox, frame: str) -> None:
    connected.store.subscriptions.clear()
    answer = connected.say(frame)
    assert answer["status"] in ("pong", "pending", "error")
    if answer["status"] == "error":
        assert answer["errorCode"] in ("INVALID_MESSAGE", "UNKNOWN_ACTION", "TOO_MANY_SUBSCRIPTIONS")
        assert connected.store.subscriptions == {}, "a message that is refused costs no row"
    else:
        assert len(connected.store.subscriptions) <= 1
    assert "Traceback" not in connected.log


@_FUZZ
@given(
    st.dictionaries(
        st.sampled_from(["Origin", "origin", "Sec-WebSocket-Protocol"]) | st.text(),
        st.text() | st.lists(st.sampled_from(["docprogress", "eyJ.a.b", " ", ""])).map(",".join),
    )
)
def test_whatever_a_handshake_says_it_is_accepted_or_refused(sandbox: Sandbox, headers: dict[str, str]) -> None:
    sandbox.store.connections.clear()
    event = recorded("connect")
    event["headers"] = headers
    reply = sandbox.invoke(event)
    assert reply["statusCode"] == 200, "this stack takes any origin"
    offered = {name.lower(): value for name, value in headers.items()}.get("sec-websocket-protocol", "")
    is_offered = "docprogress" in [each.strip() for each in offered.split(",")]
    assert reply.get("headers", {}).get("Sec-WebSocket-Protocol") == ("docprogress" if is_offered else None)
    assert len(sandbox.store.connections) == 1


def test_progress_is_served_on_its_own_route_alone(connected: Sandbox) -> None:
    # A key given twice may mean one thing to API Gateway and another to json: the throttle of `progress` would be
    # passed by.
    answer = connected.say('{"action":"ping","action":"progress","docId":"x"}', route_key="$default")
    assert answer["errorCode"] == "INVALID_MESSAGE"
    assert connected.store.subscriptions == {}


# --- correlation and metrics ---


def lines_of(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sandbox.log.splitlines()]


def test_the_lines_about_a_message_have_its_correlation_id_and_the_next_ones_have_not(connected: Sandbox) -> None:
    connected.ask(correlationId="page-1:a.b_c")
    connected.say('{"action":"cancel","docId":"unknown","correlationId":"x"}')
    connected.invoke(recorded("disconnect"))
    connected.ask()
    subscribed, cancelled, disconnected, again = lines_of(connected)[-4:]
    assert (subscribed["correlation_id"], cancelled["correlation_id"]) == ("page-1:a.b_c", "x")
    assert "correlation_id" not in disconnected.keys() | again.keys()


@pytest.mark.parametrize("bad", ["", "a b", "a\n", "é", "x" * 129, 5, ["a"], {}, True, "${jndi}"])
@pytest.mark.parametrize("action", ["progress", "cancel", "ping"])
def test_a_correlation_id_that_is_none_is_refused_and_not_logged(connected: Sandbox, action: str, bad: object) -> None:
    said = json.dumps({"action": action, "docId": "invoice-7", "correlationId": bad})
    assert connected.say(said)["errorCode"] == "INVALID_MESSAGE"
    assert "correlation_id" not in lines_of(connected)[-1]
    assert connected.store.subscriptions == {}


def test_a_line_counts_what_it_says_with_dimensions_of_few_values(sandbox: Sandbox) -> None:
    sandbox.invoke(recorded("connect"))
    sandbox.ask()
    sandbox.ask(subscribe=False)
    cancel(sandbox)
    sandbox.say("no json")
    sandbox.say('{"action":"ping"}')
    sandbox.invoke(recorded("disconnect"))
    lines = lines_of(sandbox)
    assert [
        (line["message"], next(each for each in line if each[0].isupper()), line.get("kind"), line.get("outcome"))
        for line in lines
    ] == [
        ("Connected", "ConnectionsOpened", None, None),
        ("Subscribed", "Messages", "subscribe", "answered"),
        ("Unsubscribed", "Messages", "ask", "answered"),
        ("Cancelled", "Messages", "cancel", "answered"),
        ("Request refused", "Messages", "unknown", "refused"),
        ("Disconnected", "ConnectionsClosed", None, None),
    ]
    for line in lines:
        (definition,) = line["_aws"]["CloudWatchMetrics"]
        (dimensions,), (metric,) = definition["Dimensions"], definition["Metrics"]
        assert definition["Namespace"] == "docprogress"
        assert dimensions == (["service", "kind", "outcome"] if "kind" in line else ["service"])
        assert all(isinstance(line[each], str) for each in dimensions), "CloudWatch drops a metric without one of them"
        assert (line[metric["Name"]], metric["Unit"]) == (1, "Count")
        assert abs(line["_aws"]["Timestamp"] / 1000 - time.time()) < 3600, "epoch milliseconds"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("ping", {"action": "ping"}),
        ("subscribe", {"action": "progress", "docId": "d"}),
        ("ask", {"action": "progress", "docId": "d", "subscribe": False}),
        ("cancel", {"action": "cancel", "docId": "d"}),
    ],
)
def test_a_message_that_is_refused_is_counted_with_its_kind(
    sandbox: Sandbox, kind: str, said: dict[str, object]
) -> None:
    # Of a connection that has expired or that nobody knows.
    sandbox.say(json.dumps(said), requestTimeEpoch=CONNECTED_AT + 7_200_000)
    (line,) = lines_of(sandbox)
    assert (line["kind"], line["outcome"], line["error_code"]) == (kind, "refused", "FORBIDDEN")


def test_a_message_that_fails_is_counted_as_one(connected: Sandbox) -> None:
    fail(connected, "subscribe")
    connected.ask()
    failed = lines_of(connected)[-1]
    assert (failed["Messages"], failed["kind"], failed["outcome"]) == (1, "subscribe", "failed")
