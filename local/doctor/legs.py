"""The way of a message, leg by leg and timed: name, connection, subscription, post."""

import base64
import contextlib
import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from .document import publisher
from .finding import Finding, Patient, fault, ok, warning

_PATIENCE_SECONDS = 15.0
_SIGNED_SECONDS = 60
_HANDLER = "look into the connection handler's log"
_STATUSES = {
    401: ("no token, or the authorizer refused it", "give a good one with --token"),
    403: ("the Origin, the signature or the policy is refused", "look for 'Connection refused' in the handler's log"),
    429: ("a throttle", "look at the stage's throttle and the account's quota"),
    500: ("the handler or the authorizer failed", "look into their logs"),
}


def legs(patient: Patient) -> Iterator[Finding]:
    url = patient.outputs["websocketUrl"]
    address = urlsplit(url)
    started_at = time.perf_counter()
    try:
        socket.getaddrinfo(address.hostname, address.port or 443)
    except OSError as error:
        yield fault("name", f"{address.hostname} does not resolve: {error}", "check the URL, then your DNS")
        return
    yield ok("name", f"{address.hostname} in {_milliseconds(started_at)}")
    authorization = authorization_of(patient)
    if authorization == "CUSTOM" and not patient.token:
        yield warning("connection", "not tried: the stack takes tokens", "give one with --token")
        return
    started_at = time.perf_counter()
    try:
        dialled, options = dialling(patient, authorization)()
        connection = connect(dialled, open_timeout=_PATIENCE_SECONDS, close_timeout=1, **options)
    except InvalidStatus as error:
        status = error.response.status_code
        why, cure = _STATUSES.get(
            status, ("the URL's stage or API is not there", "pulumi up --refresh, then --outputs anew")
        )
        yield fault("connection", f"refused with {status}: {why}", cure)
        return
    except (OSError, InvalidHandshake, WebSocketException) as error:
        yield fault("connection", f"cannot connect to {url}: {error}", "is the stack up, and the port open?")
        return
    with connection:
        yield ok("connection", f"in {_milliseconds(started_at)}")
        yield from _conversation(patient, connection, authorization)


@contextlib.contextmanager
def _expected(patient: Patient, document_id: str, principal_id: str) -> Iterator[None]:
    """In the block a document is the doctor's own: with authorization one of nobody is nobody's to watch."""
    publisher(patient).states.expect(document_id, owner=principal_id)
    try:
        yield
    finally:
        key = {"pk": {"S": f"DOCUMENT#{document_id}"}, "sk": {"S": "STATE"}}
        patient.client("dynamodb").delete_item(TableName=patient.outputs["tableName"], Key=key)


def principal_of(patient: Patient, authorization: str) -> str:
    """Who connects, to the stack."""
    if authorization == "CUSTOM":
        return _subject(patient.token)
    return str(patient.client("sts").get_caller_identity()["Arn"])


def _subject(token: str) -> str:
    """Whose token it is, as it says itself: the stack has taken it already."""
    try:
        body = token.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(f"{body}==="))["sub"])
    except (IndexError, KeyError, TypeError, ValueError):
        return ""


def _conversation(patient: Patient, connection: ClientConnection, authorization: str) -> Iterator[Finding]:
    document_id = f"doctor-{secrets.token_hex(8)}"
    with contextlib.ExitStack() as cleanup:
        started_at = time.perf_counter()
        try:
            answer = _ask(connection, action="progress", docId=document_id)
            if answer.get("errorCode") == "FORBIDDEN" and authorization != "NONE":
                owner = principal_of(patient, authorization)
                cleanup.enter_context(_expected(patient, document_id, owner))
                started_at = time.perf_counter()
                answer = _ask(connection, action="progress", docId=document_id)
        except TimeoutError:
            cure = "look at the routes above, and the handler's log"
            yield fault("subscription", f"no answer in {_PATIENCE_SECONDS:g} s", cure)
            return
        except ConnectionClosed as error:
            yield fault("subscription", f"the connection was closed: {error}", _HANDLER)
            return
        if answer.get("status") != "pending":
            yield fault("subscription", f"the answer is {json.dumps(answer)}", _HANDLER)
            return
        yield ok("subscription", f"answered in {_milliseconds(started_at)}")
        try:
            yield from _post(patient, connection, document_id)
        finally:
            # Else it would count until the connection has ended, which is now.
            with contextlib.suppress(WebSocketException, TimeoutError):
                _ask(connection, action="progress", docId=document_id, subscribe=False)


def _post(patient: Patient, connection: ClientConnection, document_id: str) -> Iterator[Finding]:
    """To the doctor's own connection, whose id only the table knows."""
    rows = patient.client("dynamodb").query(
        TableName=patient.outputs["tableName"],
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": f"DOCUMENT#{document_id}"}},
        ConsistentRead=True,
    )["Items"]
    connection_ids = [row["connection_id"]["S"] for row in rows if "connection_id" in row]
    if not connection_ids:
        yield fault("post", "the subscription is not in the table of the outputs", "take --outputs of this very stack")
        return
    started_at = time.perf_counter()
    data = json.dumps({"status": "pong"})
    manage = patient.client("apigatewaymanagementapi")
    manage.post_to_connection(ConnectionId=connection_ids[0], Data=data.encode())
    try:
        arrived = connection.recv(timeout=_PATIENCE_SECONDS)
    except TimeoutError:
        yield fault("post", f"accepted, and not here after {_PATIENCE_SECONDS:g} s", "look at the network between")
        return
    if arrived != data:
        yield fault("post", f"something else arrived: {arrived!r:.200}", "look into the logs of the announcers")
    else:
        yield ok("post", f"through {patient.outputs['callbackUrl']} and back in {_milliseconds(started_at)}")


def authorization_of(patient: Patient) -> str:
    """`NONE`, `AWS_IAM` or, with tokens, `CUSTOM`."""
    items = patient.client("apigatewayv2").get_routes(ApiId=patient.outputs["apiId"])["Items"]
    return next(
        (str(each.get("AuthorizationType", "NONE")) for each in items if each["RouteKey"] == "$connect"), "NONE"
    )


def dialling(patient: Patient, authorization: str) -> Callable[[], tuple[str, dict[str, Any]]]:
    """Gives, for each connection anew, the address and the options with which the stack lets a page in."""
    url = str(patient.outputs["websocketUrl"])
    allowed = _variables(patient, "connection-handler").get("ALLOWED_ORIGINS", "").split()
    options: dict[str, Any] = {"origin": Origin(allowed[0]) if allowed else None, "subprotocols": None}
    if patient.token and authorization == "CUSTOM":
        if _variables(patient, "token-authorizer").get("TOKEN_SOURCE") == "querystring":
            url = f"{url}?{urlencode({'token': patient.token})}"
        else:
            options["subprotocols"] = [Subprotocol("docprogress"), Subprotocol(patient.token)]

    def dial() -> tuple[str, dict[str, Any]]:
        if authorization != "AWS_IAM":
            return url, options
        request = AWSRequest("GET", "http" + url.removeprefix("ws"))
        SigV4QueryAuth(patient.credentials, "execute-api", patient.region, expires=_SIGNED_SECONDS).add_auth(request)
        return "ws" + str(request.url).removeprefix("http"), options

    return dial


def _variables(patient: Patient, function: str) -> dict[str, str]:
    if function not in patient.functions:
        return {}
    found = patient.client("lambda").get_function_configuration(FunctionName=patient.functions[function])
    return dict(found.get("Environment", {}).get("Variables", {}))


def _ask(connection: ClientConnection, **message: Any) -> dict[str, Any]:
    connection.send(json.dumps(message))
    answer: dict[str, Any] = json.loads(connection.recv(timeout=_PATIENCE_SECONDS))
    return answer


def _milliseconds(started_at: float) -> str:
    return f"{(time.perf_counter() - started_at) * 1000:.0f} ms"
