"""An OpenID Connect issuer on 127.0.0.1 with real keys, which can rotate them and fail in chosen ways.

    with OidcServer() as issuer:
        token = issuer.token(sub="alice")

It signs in whom `visitor` names without asking for a password, with PKCE checked and refresh tokens that rotate. That
a real issuer answers a page so is not proved with it.
"""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import ipaddress
import json
import secrets
import ssl
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

DISCOVERY_PATH = "/.well-known/openid-configuration"
JWKS_PATH = "/jwks.json"
AUDIENCE = "docprogress-web"


class Failure(Enum):
    """How the key set endpoint fails."""

    UNAVAILABLE = auto()  # 503
    SLOW = auto()  # a byte now and then, for ever
    HUGE = auto()  # a valid key set of a megabyte, chunked, so that no length announces it
    ANNOUNCED_HUGE = auto()  # Content-Length says so
    REDIRECT = auto()  # 302 to the real key set
    NOT_JSON = auto()
    NOT_AN_OBJECT = auto()
    NO_KEYS = auto()
    TOO_MANY_KEYS = auto()


@dataclass(frozen=True)
class IssuerKey:
    """A private key under a `kid`; `key_id` None publishes it and signs without one."""

    key_id: str | None
    private_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

    @property
    def algorithm(self) -> str:
        return "RS256" if isinstance(self.private_key, rsa.RSAPrivateKey) else "ES256"

    def public_jwk(self) -> dict[str, Any]:
        public_key = self.private_key.public_key()
        if isinstance(public_key, rsa.RSAPublicKey):
            jwk = RSAAlgorithm.to_jwk(public_key, as_dict=True)
        else:
            jwk = ECAlgorithm.to_jwk(public_key, as_dict=True)
        jwk.pop("key_ops", None)
        named = {} if self.key_id is None else {"kid": self.key_id}
        return {**jwk, **named, "use": "sig", "alg": self.algorithm}

    def public_pem(self) -> bytes:
        return self.private_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


@functools.cache
def rsa_key(key_id: str | None, bits: int = 2048) -> IssuerKey:
    """One for each `key_id` in a test run: making an RSA key takes a tenth of a second."""
    return IssuerKey(key_id, rsa.generate_private_key(public_exponent=65537, key_size=bits))


@functools.cache
def ec_key(key_id: str | None) -> IssuerKey:
    return IssuerKey(key_id, ec.generate_private_key(ec.SECP256R1()))


class OidcServer:
    """Serves discovery and keys until `stop`; `requests` counts what was asked for, by path, and `hosts` by whose name.

    Args:
        keys: published, and the first one signs; an RSA and an EC key unless given.
        tls: serves HTTPS with its own certificate; `certificate` is then the PEM file that vouches for it.
        latency_seconds: how long a `SLOW` answer waits before each byte.
    """

    def __init__(self, *keys: IssuerKey, tls: bool = False, latency_seconds: float = 0.05) -> None:
        self.keys: list[IssuerKey] = list(keys) or [rsa_key("rsa-1"), ec_key("ec-1")]
        self.extra_jwks: list[Any] = []
        self.failure: Failure | None = None
        self.discovery: dict[str, Any] = {}
        """Overrides of the discovery document."""
        self.visitor: str | None = "alice"
        """Who is at the browser: the `sub` of the tokens. None: nobody who could sign in."""
        self.grants: dict[str, dict[str, str]] = {}
        """What codes and refresh tokens are good for, each once."""
        self.requests: Counter[str] = Counter()
        self.hosts: Counter[str] = Counter()
        self.certificate: Path | None = None
        self._latency_seconds = latency_seconds
        self._stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._request_handler())
        self._folder = tempfile.TemporaryDirectory(prefix="oidc-server-")
        scheme = "http"
        if tls:
            scheme = "https"
            self.certificate = _write_certificate(Path(self._folder.name))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            # Without a handshake on accept, which would let one bad client block the others.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.issuer = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self.jwks_url = self.issuer + JWKS_PATH
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def token(self, key: IssuerKey | None = None, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """Signs a token valid for five minutes; a claim given as None is left out."""
        key = key or self.keys[0]
        now = int(time.time())
        defaults = {"iss": self.issuer, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 300}
        payload = {name: value for name, value in {**defaults, **claims}.items() if value is not None}
        named = {} if key.key_id is None else {"kid": key.key_id}
        # Signed as JWS, since as JWT the library would not let a wrong claim through.
        return jwt.PyJWS().encode(
            json.dumps(payload).encode(), key.private_key, key.algorithm, headers={**named, **(headers or {})}
        )

    def authorize(self, asked: dict[str, str]) -> str:
        """Where a browser goes from the sign-in page; the code is good for what was asked."""
        if self.visitor is None:
            answer = {"error": "access_denied", "error_description": "Nobody with an account is here."}
        else:
            answer = {"code": secrets.token_urlsafe(8)}
            self.grants[answer["code"]] = {**asked, "sub": self.visitor}
        return f"{asked['redirect_uri']}?{urlencode({**answer, 'state': asked['state']})}"

    def exchange(self, asked: dict[str, str]) -> dict[str, Any] | None:
        """Tokens for a code (RFC 7636) or a refresh token; None: refused."""
        grant = self.grants.pop(asked.get("code") or asked.get("refresh_token", ""), None)
        if grant is None or grant["client_id"] != asked["client_id"]:
            return None
        if asked["grant_type"] == "authorization_code":
            digest = hashlib.sha256(asked["code_verifier"].encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if (grant["code_challenge"], grant["code_challenge_method"]) != (challenge, "S256"):
                return None
            if grant["redirect_uri"] != asked["redirect_uri"]:
                return None
        renewal = secrets.token_urlsafe(8)
        self.grants[renewal] = grant
        return {
            "access_token": self.token(sub=grant["sub"], aud=grant.get("audience", AUDIENCE)),
            "id_token": self.token(sub=grant["sub"], aud=grant["client_id"]),
            "refresh_token": renewal,
            "expires_in": 300,
            "token_type": "Bearer",
        }

    def stop(self) -> None:
        """Closes the port; calling it again does nothing."""
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _jwks(self) -> dict[str, Any]:
        return {"keys": [*self.extra_jwks, *(key.public_jwk() for key in self.keys)]}

    def _request_handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                asked = dict(parse_qsl(url.query))
                issuer.requests[self.path if url.path == JWKS_PATH else url.path] += 1
                issuer.hosts[self.headers["Host"]] += 1
                self.close_connection = True
                if self.path == DISCOVERY_PATH:
                    document = {
                        "issuer": issuer.issuer,
                        "jwks_uri": issuer.jwks_url,
                        "authorization_endpoint": f"{issuer.issuer}/authorize",
                        "token_endpoint": f"{issuer.issuer}/token",
                        "revocation_endpoint": f"{issuer.issuer}/revoke",
                        "end_session_endpoint": f"{issuer.issuer}/logout",
                        "scopes_supported": ["openid", "offline_access"],
                        **issuer.discovery,
                    }
                    self._answer(json.dumps(document).encode())
                elif url.path == "/authorize":
                    self._answer(b"", status=302, location=issuer.authorize(asked))
                elif url.path == "/logout":
                    self._answer(b"", status=302, location=asked["post_logout_redirect_uri"])
                elif self.path == JWKS_PATH:
                    self._answer_keys(issuer.failure)
                elif self.path == JWKS_PATH + "?moved":
                    self._answer(json.dumps(issuer._jwks()).encode())
                else:
                    self._answer(b"{}", status=404)

            def do_POST(self) -> None:
                issuer.requests[self.path] += 1
                self.close_connection = True
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                asked = dict(parse_qsl(body))
                if self.path == "/revoke":
                    issuer.grants.pop(asked["token"], None)
                    self._answer(b"{}")
                elif tokens := issuer.exchange(asked):
                    self._answer(json.dumps(tokens).encode())
                else:
                    self._answer(b'{"error":"invalid_grant"}', status=400)

            def _answer_keys(self, failure: Failure | None) -> None:
                jwks = issuer._jwks()
                match failure:
                    case None:
                        self._answer(json.dumps(jwks).encode())
                    case Failure.UNAVAILABLE:
                        self._answer(b"{}", status=503)
                    case Failure.SLOW:
                        self._drip()
                    case Failure.HUGE:
                        self._answer_chunked(json.dumps({**jwks, "padding": "x" * 1_000_000}).encode())
                    case Failure.ANNOUNCED_HUGE:
                        self._answer(json.dumps({**jwks, "padding": "x" * 1_000_000}).encode())
                    case Failure.REDIRECT:
                        self._answer(b"", status=302, location=JWKS_PATH + "?moved")
                    case Failure.NOT_JSON:
                        self._answer(b"<html>")
                    case Failure.NOT_AN_OBJECT:
                        self._answer(json.dumps(jwks["keys"]).encode())
                    case Failure.NO_KEYS:
                        self._answer(b'{"keys":[]}')
                    case Failure.TOO_MANY_KEYS:
                        self._answer(json.dumps({"keys": jwks["keys"] * 33}).encode())

            def _answer(self, body: bytes, *, status: int = 200, location: str | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Access-Control-Allow-Origin", "*")
                if location is not None:
                    self.send_header("Location", location)
                self.end_headers()
                self._write(body)

            def _answer_chunked(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for start in range(0, len(body), 10_000):
                    chunk = body[start : start + 10_000]
                    if not self._write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n"):
                        return
                self._write(b"0\r\n\r\n")

            def _drip(self) -> None:
                # Even the status line takes for ever, so that no reader's time-out between bytes helps.
                while not issuer._stopping.wait(issuer._latency_seconds) and self._write(b"H"):
                    pass

            def _write(self, data: bytes) -> bool:
                """False when the client has gone, as it should have in most failures."""
                try:
                    self.wfile.write(data)
                except OSError:
                    return False
                return True

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True  # a client that distrusts our certificate leaves in mid-handshake

            def log_message(self, format: str, *args: Any) -> None:
                """Tests read `requests`; standard error stays for errors."""

        return Handler


def _write_certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, valid for an hour, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "local test issuer")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        # Python 3.13 and later verify strictly, and want this one too.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
