"""Not proven here: that Chromium sends these headers (they were recorded), nor what the program's own routes allow
(test_authorization)."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import urllib.parse
import uuid
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from local.emulator import CREDENTIALS, REGION, Emulator
from tests.local.conftest import DeployedStack
from tests.local.scenarios import ask

KEY, SECRET = CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
EVIL = "https://evil.example"
BY_A_PAGE = {
    "an image": {
        "Accept": "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
        "Referer": f"{EVIL}/",
        "Sec-Fetch-Dest": "image",
        "Sec-Fetch-Mode": "no-cors",
        "Sec-Fetch-Site": "cross-site",
        "sec-ch-ua-platform": '"Linux"',
    },
    "a navigation": {
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        "Sec-Fetch-Dest": "document",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-User": "?1",
        "Upgrade-Insecure-Requests": "1",
    },
    "a link in a mail program": {
        "Sec-Fetch-Dest": "document",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Site": "none",
        "Sec-Fetch-User": "?1",
    },
    "a fetch without CORS": {
        "Accept": "*/*",
        "Sec-Fetch-Dest": "empty",
        "Sec-Fetch-Mode": "no-cors",
        "Sec-Fetch-Site": "cross-site",
    },
    "a form": {
        "Content-Type": "application/x-www-form-urlencoded",
        "Origin": EVIL,
        "Sec-Fetch-Dest": "document",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Site": "cross-site",
    },
    "a sandboxed frame": {"Origin": "null", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "cross-site"},
    "an old browser": {"Origin": EVIL},
    "a name that points here": {"Host": "evil.example:4566", "Sec-Fetch-Site": "same-origin"},
}
ATTACKS = {
    "CreateStack": {"StackName": "evil", "TemplateBody": '{"Resources":{"T":{"Type":"AWS::SQS::Queue"}}}'},
    "CreateUser": {"UserName": "evil"},
}


def exchange(
    emulator: Emulator, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def signed(
    emulator: Emulator,
    method: str,
    path: str,
    *,
    service: str = "iam",
    secret: str = SECRET,
    key: str = KEY,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> dict[str, str]:
    """The headers of a request that botocore signs."""
    request = AWSRequest(method, f"http://127.0.0.1:{emulator.port}{path}", headers or {}, body)
    request.headers["Host"] = f"127.0.0.1:{emulator.port}"
    SigV4Auth(Credentials(key, secret), service, REGION).add_auth(request)
    return dict(request.headers.items())


@pytest.mark.parametrize("action", ATTACKS)
@pytest.mark.parametrize("way", BY_A_PAGE)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_elsewhere_creates_nothing(emulator: Emulator, aws: Any, method: str, way: str, action: str) -> None:
    query = urllib.parse.urlencode({"Action": action, **ATTACKS[action]})
    path, body = (f"/?{query}", None) if method == "GET" else ("/", query.encode())
    # Signed rightly, so that nothing but the page's own headers can be the reason.
    service = "iam" if action == "CreateUser" else "cloudformation"
    signature = signed(emulator, method, path, service=service, body=body or b"")
    for headers in (BY_A_PAGE[way], signature | BY_A_PAGE[way]):
        assert exchange(emulator, method, path, body, **headers)[0] == 403
    assert aws("iam").list_users()["Users"] == []
    assert aws("cloudformation").list_stacks()["StackSummaries"] == []


def raw(emulator: Emulator, target: str, *headers: tuple[str, str]) -> int:
    """The status of a request whose target and headers no client library would send."""
    connection = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=60)
    try:
        connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status
    except (http.client.BadStatusLine, ConnectionError):
        return 400  # closed without a word
    finally:
        connection.close()


LIST_USERS = "/?Action=ListUsers&Version=2010-05-08"


@pytest.mark.parametrize(
    "odd",
    [
        [("Host", "evil.example"), ("Host", "x.localhost")],
        [("Host", "evil.example,x.localhost")],
        [("Host", "evil.example@127.0.0.1")],
        [("Host", "127.0.0.1@evil.example")],
        [("Host", "127.0.0.1/evil.example")],
        [("Host", "x.127.0.0.1")],
        [("Host", "127.1")],
        [("Host", "2130706433")],
        [("Host", "0.0.0.0")],
        [("Host", "[")],
        [("Host", "")],
        [],
        [("Host", "127.0.0.1"), ("Origin", "")],
        [("Host", "127.0.0.1"), ("Origin", "http://[")],
        [("Host", "127.0.0.1"), ("Origin", "localhost")],
        [("Host", "127.0.0.1"), ("Origin", "file://localhost")],
        [("Host", "127.0.0.1"), ("Origin", "chrome-extension://localhost")],
        [("Host", "127.0.0.1"), ("Origin", "https://evil.example@localhost")],
        [("Host", "127.0.0.1"), ("Origin", "https://evil.example"), ("Origin", "http://x.localhost")],
        [("Host", "127.0.0.1"), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-origin")],
        [("Host", "127.0.0.1"), ("sec-FETCH-site", "CROSS-SITE")],
        [("Host", "127.0.0.1"), ("Sec-Fetch-Site", "")],
        [("Host", "127.0.0.1"), ("Sec-Fetch-Site", "same-origin, cross-site")],
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(emulator: Emulator, odd: list[tuple[str, str]]) -> None:
    host = next((value for name, value in odd if name == "Host"), "127.0.0.1")
    request = AWSRequest("GET", f"http://127.0.0.1{LIST_USERS}", {"Host": host})
    SigV4Auth(Credentials(KEY, SECRET), "iam", REGION).add_auth(request)
    signature = [(name, value) for name, value in request.headers.items() if name != "Host"]

    assert raw(emulator, LIST_USERS, *odd, *signature) in (400, 403)


@pytest.mark.parametrize("target", [f"http://127.0.0.1{LIST_USERS}", f"/.{LIST_USERS}", f"/{LIST_USERS}", "*"])
def test_an_odd_target_needs_a_signature_too(emulator: Emulator, target: str) -> None:
    assert raw(emulator, target, ("Host", "127.0.0.1")) in (400, 403, 404)


@pytest.mark.parametrize("action", ATTACKS)
def test_who_has_no_key_of_this_run_creates_nothing(emulator: Emulator, aws: Any, action: str) -> None:
    path = "/?" + urllib.parse.urlencode({"Action": action, **ATTACKS[action]})
    service = "iam" if action == "CreateUser" else "cloudformation"
    assert exchange(emulator, "GET", path)[0] == 403, "unsigned"
    assert exchange(emulator, "GET", path, Authorization="Bearer a")[0] == 403
    assert exchange(emulator, "GET", path + "&X-Amz-Credential=test/20260101/us-east-1/iam/aws4_request")[0] == 403
    for key, secret in (("test", "test"), ("000000000000", "test"), (KEY, "test"), ("AKIAUNKNOWN000000000", SECRET)):
        headers = signed(emulator, "GET", path, service=service, key=key, secret=secret)
        assert exchange(emulator, "GET", path, **headers)[0] == 403, (key, secret)
    assert aws("iam").list_users()["Users"] == []
    assert aws("cloudformation").list_stacks()["StackSummaries"] == []


@pytest.mark.parametrize("host", ["127.0.0.1", "x.localhost", "x.s3.localhost", "deadbeef.execute-api.localhost"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/login"),
        ("POST", "/oauth2/authorize"),
        ("PUT", "/oauth2/token"),
        ("GET", "/_aws/execute-api/unknown"),
        ("POST", "/_aws/execute-api/unknown/dev/"),
        ("OPTIONS", "/"),
        ("GET", "/pool/.well-known/jwks.json"),
        ("PROPFIND", "/"),
    ],
)
def test_no_path_that_is_open_leads_elsewhere(emulator: Emulator, aws: Any, method: str, path: str, host: str) -> None:
    action = urllib.parse.urlencode({"Action": "CreateUser", "UserName": "evil", "Version": "2010-05-08"})
    for body in (None, action.encode()):
        headers = {"Host": f"{host}:{emulator.port}", "Content-Type": "application/x-www-form-urlencoded"}
        assert exchange(emulator, method, f"{path}?{action}", body, **headers)[0] == 403
        if method != "OPTIONS":  # which nobody asks without a question
            assert exchange(emulator, method, path, body, **headers)[0] == 403
    assert aws("iam").list_users()["Users"] == []


def test_a_page_of_this_machine_may_ask_what_it_may_upload(emulator: Emulator, bucket: str) -> None:
    page = {"Origin": "http://127.0.0.1:5173", "Access-Control-Request-Method": "PUT", "Sec-Fetch-Site": "same-site"}
    for query in (
        "",
        "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a/b/us-east-1/s3/aws4_request&X-Amz-Signature=0",
    ):
        assert b"signed" not in exchange(emulator, "OPTIONS", f"/{bucket}/a.pdf{query}", **page)[1]
    elsewhere = page | {"Origin": EVIL, "Sec-Fetch-Site": "cross-site"}
    assert exchange(emulator, "OPTIONS", f"/{bucket}/a.pdf", **elsewhere)[0] == 403


def test_what_was_signed_cannot_be_changed(emulator: Emulator) -> None:
    body = b"Action=ListUsers&Version=2010-05-08"
    form = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    headers = signed(emulator, "POST", "/", body=body, headers=form)
    assert exchange(emulator, "POST", "/", body, **headers)[0] == 200
    assert exchange(emulator, "POST", "/", body.replace(b"ListUsers", b"ListRoles"), **headers)[0] == 403
    assert exchange(emulator, "POST", "/?Action=ListRoles", body, **headers)[0] == 403
    hashed = form | {"X-Amz-Content-SHA256": hashlib.sha256(body).hexdigest()}
    headers = signed(emulator, "POST", "/", body=body, headers=hashed)
    assert exchange(emulator, "POST", "/", body, **headers)[0] == 200
    assert exchange(emulator, "POST", "/", body.replace(b"ListUsers", b"ListRoles"), **headers)[0] == 403
    late = form | {"X-Amz-Date": "20200101T000000Z"}
    assert exchange(emulator, "POST", "/", body, **headers | late)[0] == 403


def test_the_refusal_is_one_that_a_client_reads(emulator: Emulator) -> None:
    session: Any = boto3.Session("test", "test", region_name=REGION)
    for service, operation in (
        ("s3", "list_buckets"),
        ("sqs", "list_queues"),
        ("iam", "list_users"),
        ("lambda", "list_functions"),
        ("dynamodb", "list_tables"),
    ):
        client = session.client(service, endpoint_url=emulator.endpoint_url)
        with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|InvalidSignature"):
            getattr(client, operation)()
        client.close()


def test_the_emulators_own_controls_are_for_nobody(emulator: Emulator) -> None:
    assert exchange(emulator, "GET", "/_ministack/health")[0] == 200
    for path in ("/_ministack/reset", "/_ministack/config"):
        assert exchange(emulator, "POST", path, b"{}")[0] == 403
        headers = signed(emulator, "POST", path, body=b"{}")
        assert exchange(emulator, "POST", path, b"{}", **headers)[0] == 403


@pytest.fixture(scope="module")
def bucket(aws: Any) -> str:
    name = f"guarded-{uuid.uuid4().hex[:8]}"
    aws("s3").create_bucket(Bucket=name)
    aws("s3").put_object(Bucket=name, Key="a b/ü+.pdf", Body=b"content")
    return name


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_a_presigned_url_works_until_it_is_changed_or_expires(emulator: Emulator, bucket: str, version: str) -> None:
    def url(expires_in: int = 60) -> str:
        session: Any = boto3.Session(KEY, SECRET, region_name=REGION)
        client = session.client("s3", endpoint_url=emulator.endpoint_url, config=Config(signature_version=version))
        made: str = client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": "a b/ü+.pdf"}, ExpiresIn=expires_in
        )
        client.close()
        return made.removeprefix(emulator.endpoint_url)

    assert exchange(emulator, "GET", url()) == (200, b"content")
    page = {"Origin": "http://127.0.0.1:5173", "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}
    assert exchange(emulator, "GET", url(), **page) == (200, b"content")
    assert exchange(emulator, "GET", url(), **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert exchange(emulator, "GET", url().replace(".pdf", ".txt"))[0] == 403
    assert exchange(emulator, "DELETE", url())[0] == 403
    if version == "s3":  # botocore makes no other one that is late
        assert exchange(emulator, "GET", url(expires_in=-5))[0] == 403
    else:
        assert exchange(emulator, "GET", url().replace("Expires=60", "Expires=6000"))[0] == 403


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_a_form_uploads_with_its_signature_and_not_without(
    emulator: Emulator, aws: Any, bucket: str, version: str
) -> None:
    session: Any = boto3.Session(KEY, SECRET, region_name=REGION)
    client = session.client("s3", endpoint_url=emulator.endpoint_url, config=Config(signature_version=version))
    form = client.generate_presigned_post(bucket, f"form-{version}")["fields"]
    client.close()

    def post(fields: dict[str, str]) -> int:
        parts = [
            f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}' for name, value in fields.items()
        ]
        parts.append('--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\ncontent\r\n--b--\r\n')
        content_type = {"Content-Type": "multipart/form-data; boundary=b"}
        return exchange(emulator, "POST", f"/{bucket}", "\r\n".join(parts).encode(), **content_type)[0]

    name = "signature" if version == "s3" else "x-amz-signature"
    assert post(form | {name: "0" * 64}) == 403
    assert post({"key": "unsigned"}) == 403
    assert post(form | {"key": "other"}) == 403
    assert post(form) == 204
    keys = [each["Key"] for each in aws("s3").list_objects_v2(Bucket=bucket, Prefix="form-")["Contents"]]
    assert f"form-{version}" in keys


def test_a_body_signed_in_chunks_is_taken_and_a_forged_chunk_is_not(emulator: Emulator, aws: Any, bucket: str) -> None:
    """Over plain HTTP, as other SDKs do: docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html"""
    content = b"x" * 70_000
    declared = {
        "X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "X-Amz-Decoded-Content-Length": str(len(content)),
        "Content-Encoding": "aws-chunked",
    }
    headers = signed(emulator, "PUT", f"/{bucket}/chunked", service="s3", headers=declared)
    date, previous = headers["X-Amz-Date"], headers["Authorization"].rpartition("Signature=")[2]
    key = f"AWS4{SECRET}".encode()
    for word in (date[:8], REGION, "s3", "aws4_request"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    body = b""
    for chunk in (content[:65_536], content[65_536:], b""):
        hashes = [hashlib.sha256(b"").hexdigest(), hashlib.sha256(chunk).hexdigest()]
        text = "\n".join(["AWS4-HMAC-SHA256-PAYLOAD", date, f"{date[:8]}/{REGION}/s3/aws4_request", previous, *hashes])
        previous = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        body += f"{len(chunk):x};chunk-signature={previous}\r\n".encode() + chunk + b"\r\n"
    assert exchange(emulator, "PUT", f"/{bucket}/chunked", body.replace(b"x" * 100, b"y" * 100), **headers)[0] == 403
    assert exchange(emulator, "PUT", f"/{bucket}/chunked", body, **headers)[0] == 200
    assert aws("s3").get_object(Bucket=bucket, Key="chunked")["Body"].read() == content


def test_a_user_of_the_account_asks_with_keys_of_ones_own(emulator: Emulator, aws: Any) -> None:
    iam = aws("iam")
    iam.create_user(UserName="reader")
    try:
        allow = {"Effect": "Allow", "Action": "dynamodb:ListTables", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
        made = iam.create_access_key(UserName="reader")["AccessKey"]
        for secret, taken in ((made["SecretAccessKey"], True), ("wrong", False)):
            session: Any = boto3.Session(made["AccessKeyId"], secret, region_name=REGION)
            client = session.client("dynamodb", endpoint_url=emulator.endpoint_url)
            if taken:
                assert "TableNames" in client.list_tables()
            else:
                with pytest.raises(ClientError):
                    client.list_tables()
            client.close()
        iam.delete_access_key(UserName="reader", AccessKeyId=made["AccessKeyId"])
        iam.delete_user_policy(UserName="reader", PolicyName="read")
    finally:
        iam.delete_user(UserName="reader")


def test_sign_in_needs_no_key(emulator: Emulator, aws: Any) -> None:
    cognito = aws("cognito-idp")
    pool = cognito.create_user_pool(PoolName="users")["UserPool"]["Id"]
    flows = ["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"]
    client_id = cognito.create_user_pool_client(UserPoolId=pool, ClientName="page", ExplicitAuthFlows=flows)
    cognito.admin_create_user(UserPoolId=pool, Username="ada", MessageAction="SUPPRESS")
    cognito.admin_set_user_password(UserPoolId=pool, Username="ada", Password="Aa1!aaaaaaaa", Permanent=True)
    signed_in = cognito.initiate_auth(
        ClientId=client_id["UserPoolClient"]["ClientId"],
        AuthFlow="USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": "ada", "PASSWORD": "Aa1!aaaaaaaa"},
    )
    assert signed_in["AuthenticationResult"]["AccessToken"], "boto3 signs this call for nobody"
    status, keys = exchange(emulator, "GET", f"/{pool}/.well-known/jwks.json")
    assert status == 200
    assert json.loads(keys)["keys"]
    assert exchange(emulator, "GET", "/no-pool/.well-known/jwks.json")[0] == 403, "an object of some bucket"
    target = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "AWSCognitoIdentityProviderService."}
    for operation in ("ListUserPools", "AdminCreateUser", "InitiateAuthX"):
        asked = target | {"X-Amz-Target": target["X-Amz-Target"] + operation}
        assert exchange(emulator, "POST", "/", b"{}", **asked)[0] == 403
    asked = target | {"X-Amz-Target": target["X-Amz-Target"] + "InitiateAuth"}
    path = "/?" + urllib.parse.urlencode({"Action": "CreateUser", "UserName": "evil"})
    assert exchange(emulator, "POST", path, b"{}", **asked)[0] == 403


def test_an_api_is_asked_unsigned_but_nobody_posts_to_its_connections_unsigned(stack: DeployedStack) -> None:
    api, stage = stack.outputs["apiId"], stack.outputs["stageName"]
    posted = f"/_aws/execute-api/{api}/{stage}/@connections/abc"
    hidden = [posted.replace("@", each) for each in ("%40", "./@", "/@", "x/../@")]
    for path in (posted, *hidden, posted.replace("conn", "%63onn"), posted.replace("/@", "%2F@")):
        assert exchange(stack.emulator, "POST", path, b"{}")[0] == 403
    unsigned = exchange(stack.emulator, "GET", f"/_aws/execute-api/{api}/{stage}/documents")
    assert unsigned[0] != 403, "what its routes say"
    headers = signed(stack.emulator, "GET", f"/_aws/execute-api/{api}/{stage}/documents", secret="wrong")
    assert exchange(stack.emulator, "GET", f"/_aws/execute-api/{api}/{stage}/documents", **headers)[0] == 403


@pytest.mark.parametrize("origin", ["http://127.0.0.1:5173", "http://localhost:3000", None])
def test_a_page_of_this_machine_opens_a_websocket(stack: DeployedStack, origin: Any) -> None:
    with stack.connect(origin=origin) as connection:
        assert ask(connection, action="ping") == {"status": "pong"}


@pytest.mark.parametrize("origin", [EVIL, "null", "http://127.0.0.1.evil.example", "http://localhost.evil.example"])
def test_a_page_elsewhere_opens_no_websocket(stack: DeployedStack, origin: Any) -> None:
    with pytest.raises(InvalidStatus) as refused:
        stack.connect(origin=origin)
    assert refused.value.response.status_code == 403


def test_a_websocket_by_a_name_that_points_here_is_refused(stack: DeployedStack) -> None:
    url = urllib.parse.urlsplit(stack.outputs["websocketUrl"])
    named = url._replace(netloc=f"evil.example:{url.port}").geturl()
    with pytest.raises(InvalidStatus) as refused:
        connect(named, address=("127.0.0.1", url.port), origin="http://evil.example")  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403


def test_a_websocket_with_a_wrong_signature_is_refused(iam_stack: DeployedStack) -> None:
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for key in ("test", KEY):
        query = urllib.parse.urlencode(
            {
                "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
                "X-Amz-Credential": f"{key}/{now[:8]}/{REGION}/execute-api/aws4_request",
                "X-Amz-Date": now,
                "X-Amz-Expires": "60",
                "X-Amz-SignedHeaders": "host",
                "X-Amz-Signature": "0" * 64,
            }
        )
        with pytest.raises(InvalidStatus) as refused:
            iam_stack.connect(f"?{query}")
        assert refused.value.response.status_code == 403
