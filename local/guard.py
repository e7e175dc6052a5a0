"""Who may ask the emulator: this machine's own pages and tools, each request signed by a key that the emulator issued.

A web page anywhere can send requests to 127.0.0.1, and AWS's query APIs take them by GET: without this, an `<img>` runs
code as the developer. So other sites are refused by what a browser says of them (Host, Origin, Sec-Fetch-Site), and
everybody else by SigV4, which MiniStack checks for all keys but its root. Runs in the emulator's own process.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, quote

from ministack import app as ministack
from ministack.core import iam_evaluator, sigv4
from ministack.core.iam_actions import unsigned_operations
from ministack.core.responses import _account_from_sts_session, get_account_id
from ministack.core.router import detect_service, extract_access_key_id
from ministack.services import apigateway, lambda_svc, s3

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

_HEALTH = "/_ministack/health"
_EXECUTE_API = "/_aws/execute-api/"
# Exactly what MiniStack takes for Cognito: by another method, the same path is some other service's.
_SIGN_IN = {
    ("GET", "/oauth2/authorize"),
    ("GET", "/oauth2/userInfo"),
    ("POST", "/oauth2/userInfo"),
    ("POST", "/oauth2/token"),
    ("POST", "/oauth2/login"),
    ("POST", "/login"),
    ("GET", "/logout"),
}
_DISCOVERY = re.compile(r"/([^/]+)/\.well-known/(jwks\.json|openid-configuration)")
_BUCKET = re.compile(r"/[a-z0-9][a-z0-9.-]{2,62}/?")
_LOOPBACK = r"127\.0\.0\.1|\[::1\]|localhost"
# As a browser writes them, and nothing else: what is read in two ways is read in the wrong one by somebody.
_ADDRESS = re.compile(rf"(?:{_LOOPBACK})(?::\d+)?", re.IGNORECASE | re.ASCII)
_LOCAL = re.compile(rf"(?:{_LOOPBACK}|(?:[a-z0-9-]+\.)+localhost)(?::\d+)?", re.IGNORECASE | re.ASCII)
_LOCAL_ORIGIN = re.compile(rf"https?://{_LOCAL.pattern}", re.IGNORECASE | re.ASCII)
_HELP = "Ask with the credentials that `make up` or `make emulator` printed; each run has its own."


class Guard:
    """Stands before MiniStack's ASGI application and lets through what may ask."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await ministack.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _Request(scope)
        if not (request.has_local_host() and request.is_same_site() and request.has_local_origin()):
            await _answer(send, 403, {"content-type": "text/plain"}, b"only pages of this machine may ask")
            return
        # Policies that refuse plain HTTP (aws:SecureTransport) take loopback, which no one else can read, for TLS.
        scope = {**scope, "scheme": "https"}
        if scope["path"] != _HEALTH:
            if request.needs_body():
                body = await _read(receive)
                receive = _again(body, receive)
                failure = request.failure(body)
            else:
                failure = request.failure(b"")
            if failure:
                await _answer(send, *request.refusal(*failure))
                return
        await ministack.app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _Request(scope)
        origin = request.headers.get("origin")
        # By its Origin, which a browser always sends here: a page of 127.0.0.1 is on another site than localhost.
        of_a_known_page = request.has_local_origin() or origin in _origins_named_by(request)
        allowed = request.has_local_host() and of_a_known_page and (origin is not None or request.is_same_site())
        # Whether an unsigned connection is taken is for its route to say; a wrong signature is nobody's.
        if not allowed or (request.is_signed() and request.signature_failure(b"")):
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: HTTP 403
            return
        await ministack.app(scope, receive, send)


class _Request:
    """A request as it was sent: what its signature covers."""

    def __init__(self, scope: Scope) -> None:
        self.method = scope.get("method", "GET")
        self.path = scope["path"]
        self.raw_path = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1")
        self.query = parse_qs(scope.get("query_string", b"").decode("utf-8", "replace"), keep_blank_values=True)
        self.headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1").lower(), sigv4.decode_header_value(value)
            self.headers[key] = f"{self.headers[key]},{text}" if key in self.headers else text

    def has_local_host(self) -> bool:
        """By name, since others may point here."""
        return _LOCAL.fullmatch(self.headers.get("host", "")) is not None

    def has_local_origin(self) -> bool:
        """Also where there is none."""
        return "origin" not in self.headers or _LOCAL_ORIGIN.fullmatch(self.headers["origin"]) is not None

    def is_same_site(self) -> bool:
        # `none` is a link in a mail program or a bookmark: nobody has one to this address.
        return self.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "same-site")

    def is_signed(self) -> bool:
        authorization = self.headers.get("authorization", "")
        return bool(extract_access_key_id(self.headers, self.query)) or authorization.startswith(("AWS4-", "AWS "))

    def needs_body(self) -> bool:
        return self.is_signed() or self._is_form()

    def failure(self, body: bytes) -> tuple[str, str] | None:
        """Why the request is refused, as AWS's code and message; None if it is not."""
        if self.path.startswith("/_ministack/"):
            return "AccessDenied", "MiniStack's own controls are not for requests."
        if self._is_preflight():
            return None
        if self.is_signed():
            return self.signature_failure(body)
        # By a name of its own, a request may be another service's than its path and headers say.
        if self._is_by_address() and (self._may_be_unsigned() or (self._is_form() and self._form_is_signed(body))):
            return None
        return "MissingAuthenticationToken", f"The request is not signed. {_HELP}"

    def signature_failure(self, body: bytes) -> tuple[str, str] | None:
        authorization, key = self.headers.get("authorization", ""), extract_access_key_id(self.headers, self.query)
        account = _account_from_sts_session(key) or iam_evaluator.find_iam_access_key_account(key) or get_account_id()
        presigned = not authorization.startswith("AWS4-")
        if (
            authorization.startswith("AWS ") or "AWSAccessKeyId" in self.query
        ):  # what boto3 makes of an S3 URL by default
            request = iam_evaluator.SignedRequest(
                key, self.method, self.raw_path, self.query, self.headers, sigv2=True, auth_path=self.raw_path
            )
            checked = iam_evaluator._sigv2_check(request, account)
            return (checked.code, checked.message) if isinstance(checked, iam_evaluator.AuthError) else None
        parse = sigv4.parse_query_signature if presigned else sigv4.parse_header_signature
        signature = parse(self.query if presigned else self.headers)
        if isinstance(signature, tuple):
            return signature
        late = self._expired(signature.amz_date) if presigned else sigv4.request_time_failure(signature)
        if late:
            return late
        token = self._word("X-Amz-Security-Token") if presigned else self.headers.get("x-amz-security-token", "")
        credential = iam_evaluator.resolve_credential(key, account, token)
        if isinstance(credential, iam_evaluator.CredentialResolutionError):
            return credential.code, f"{credential.message} {_HELP}"
        declared = "UNSIGNED-PAYLOAD" if presigned else self.headers.get("x-amz-content-sha256", "")
        if re.fullmatch("[0-9a-f]{64}", declared) and declared != hashlib.sha256(body).hexdigest():
            return "XAmzContentSHA256Mismatch", "The body is not the one that was signed."
        if "host" not in signature.signed_headers.split(";"):
            return "SignatureDoesNotMatch", "The Host header is not signed."
        failure: tuple[str, str] | None = sigv4.header_signature_failure(
            signature,
            credential.secret_access_key,
            self.method,
            self.raw_path,
            self.query,
            self.headers,
            body,
            presigned=presigned,
        )
        return failure

    def refusal(self, code: str, message: str) -> tuple[int, dict[str, str], bytes]:
        """The answer in the form that the client of the service reads."""
        service = detect_service(self.method, self.path, self.headers, self.query)
        denied = iam_evaluator.AuthError(code, message)
        _, headers, body = ministack._credential_failure(service, "", "", denied, self.headers)
        return 403, headers, body

    def _word(self, name: str) -> str:
        return str((self.query.get(name) or self.query.get(name.lower()) or [""])[0])

    def _expired(self, signed_at: str) -> tuple[str, str] | None:
        try:
            expired = sigv4.presigned_request_is_expired(signed_at, self._word("X-Amz-Expires") or 900)
        except ValueError:
            expired = True
        return ("AccessDenied", "Request has expired") if expired else None

    def _may_be_unsigned(self) -> bool:
        """What AWS takes from anyone: an API's own routes, sign-in, and the operations that are never signed."""
        if self.path.startswith(_EXECUTE_API):
            api_id, _, _ = ministack._parse_execute_api_url("", self.path) or ("", "", "")
            return apigateway.find_api_scope(api_id) is not None and "/@connections" not in self.path
        found = _DISCOVERY.fullmatch(self.path)
        if found:
            pool = ministack._get_module("cognito")._get_pool_unscoped(found[1])
            return self.method == "GET" and pool is not None
        if (self.method, self.path) in _SIGN_IN:
            return True
        # By header alone, which no form, link or image can have.
        service, _, operation = self.headers.get("x-amz-target", "").partition(".")
        name = {"AWSCognitoIdentityProviderService": "cognito-idp", "AWSCognitoIdentityService": "cognito-identity"}
        is_call = self.method == "POST" and self.path == "/" and not self.query
        return is_call and service in name and operation in unsigned_operations(name[service])

    def _is_by_address(self) -> bool:
        return _ADDRESS.fullmatch(self.headers["host"]) is not None

    def _is_preflight(self) -> bool:
        """What a browser asks before a page's request, by its URL: a signature there is one of that request."""
        own = self.path.startswith("/_") or "Action" in self.query
        return (
            self.method == "OPTIONS"
            and "access-control-request-method" in self.headers
            and not own
            and self._is_by_address()
        )

    def _is_form(self) -> bool:
        """A browser's upload to S3, which carries its signature in its fields."""
        is_post = self.method == "POST" and not self.query and _BUCKET.fullmatch(self.path) is not None
        is_form = self.headers.get("content-type", "").startswith("multipart/form-data")
        return is_post and is_form and detect_service(self.method, self.path, self.headers, self.query) == "s3"

    def _form_is_signed(self, body: bytes) -> bool:
        # MiniStack checks the signature of a form that has one, its root's too.
        names = {name.lower() for name, *_ in s3._parse_multipart_form(self.headers["content-type"], body)}
        return bool(names & {"x-amz-signature", "signature"})


def _origins_named_by(request: _Request) -> list[str]:
    """The origins that the program behind a WebSocket URL names as those that may connect."""
    parsed = ministack._parse_execute_api_url(request.headers.get("host", ""), request.path)
    for route in (apigateway._routes.get(parsed[0]) or {}).values() if parsed else ():
        if route["routeKey"] == "$connect":
            integration = apigateway._integrations[parsed[0]].get(route.get("target", "").removeprefix("integrations/"))
            uri = (integration or {}).get("integrationUri", "")
            reference = apigateway._extract_lambda_ref_from_integration_uri(uri)
            _, configuration, _ = lambda_svc._get_func_record_for_ref(reference)
            return str(
                (configuration or {}).get("Environment", {}).get("Variables", {}).get("ALLOWED_ORIGINS", "")
            ).split()
    return []


async def _read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives the application the body that was read before it."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def given() -> Any:
        return left.pop() if left else await receive()

    return given


async def _answer(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
