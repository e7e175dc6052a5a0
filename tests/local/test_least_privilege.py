"""Nothing that a role may do can be left out: without it, what the role is for fails. On the emulator.

Does not prove what the emulator does not enforce: reading a stream, writing logs, s3:ListBucket, customer keys,
the invoke role, who may assume a role, and the permissions of functions for S3, EventBridge and HTTP APIs. Nor
that every action of a statement is needed, nor that no narrower resource would do; the graph tests compare those
whole.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pulumi_aws as aws
import pytest
from botocore.credentials import Credentials
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from docprogress.table.client import Table
from docprogress.table.states import States
from infra.authorization import IamAuthorization
from tests.functions.test_upload_presigner import post
from tests.infra.samples import lambda_function, websocket_api
from tests.local.conftest import DeployedStack
from tests.local.scenarios import (
    PATIENCE_SECONDS,
    ask,
    eventually,
    expect,
    expire,
    pdf,
    put_silent_document,
    receive_to_the_end,
    result_link,
    rows,
    rows_of_watchers,
    signed,
    status,
    upload,
    upload_form,
)
from tests.mock_engine import arn, run

# What has not come by then from a warm function is taken for missing; it usually comes within half a second.
_SHORT_PATIENCE_SECONDS = 1.5

_NOT_ENFORCED = {
    # There are no customer keys, and Lambda itself sends what it gave up.
    *("kms:Decrypt", "kms:DescribeKey", "sqs:SendMessage"),
    "dynamodb:GetRecords",
    "dynamodb:ListStreams",
    "logs:PutLogEvents",
    "s3:ListBucket",  # the emulator says 404 for what is not there, with it and without
}

_numbers = count()


def _connections_are_kept(stack: DeployedStack, _folder: Path, patience: float) -> bool:
    document_id = f"kept-{next(_numbers)}"
    with stack.connect() as connection:
        for subscribe in (True, False, True):
            if ask(connection, action="progress", docId=document_id, subscribe=subscribe)["status"] != "pending":
                return False
    if not eventually(lambda: not rows(stack, f"DOCUMENT#{document_id}"), within=patience):
        return False
    with stack.connect() as connection:
        return ask(connection, action="cancel", docId=document_id).get("errorCode") == "CANCELLED"


def _documents_are_processed(stack: DeployedStack, folder: Path, patience: float) -> bool:
    def process(document_id: str) -> None:
        upload(stack, document_id, pdf(folder))

    return _watchers_are_served(stack, patience, process, "processing_complete")


def _ends_are_put(stack: DeployedStack, _folder: Path, patience: float) -> bool:
    document_id, number = f"put-{next(_numbers)}", next(_numbers)
    rules, queues = stack.client("events"), stack.client("sqs")
    queue = queues.create_queue(QueueName=f"put-{number}")["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rules.put_rule(Name=f"put-{number}", EventPattern='{"source": ["docprogress"]}')
    rules.put_targets(Rule=f"put-{number}", Targets=[{"Id": "queue", "Arn": arn}])
    States(Table(stack.outputs["tableName"], lambda: stack.client("dynamodb"))).cancel(document_id, principal_id=None)

    def is_put() -> bool:
        messages = queues.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        return any(document_id in message["Body"] for message in messages)

    return eventually(is_put, within=patience)


def _ends_are_told_and_noted(stack: DeployedStack, folder: Path, patience: float) -> bool:
    document_id = ""

    def process(name: str) -> None:
        nonlocal document_id
        document_id = name
        upload(stack, document_id, pdf(folder))

    def is_noted() -> bool:
        (state,) = [row for row in rows(stack, f"DOCUMENT#{document_id}") if row["sk"]["S"] == "STATE"]
        return "active_shard" not in state

    return _watchers_are_served(stack, patience, process, "processing_complete") and eventually(
        is_noted, within=patience
    )


def _silent_documents_are_ended(stack: DeployedStack, _folder: Path, patience: float) -> bool:
    def stall(document_id: str) -> None:
        put_silent_document(stack, document_id, owner="alice" if stack.issuer else None)
        stack.client("lambda").invoke(FunctionName=stack.outputs["functionNames"]["stall-watchdog"], Payload=b"{}")

    return _watchers_are_served(stack, patience, stall, "PROCESSING_STALLED")


def _uploads_are_taken(stack: DeployedStack, folder: Path, _patience: float) -> bool:
    assert stack.issuer is not None
    try:
        forms = [upload_form(stack, token=stack.issuer.token(), file_name=name) for name in ("a.pdf", "a.docx")]
    except urllib.error.HTTPError as error:
        error.close()
        return False
    return all(post(form["url"], form["fields"], pdf(folder)) == (204, "") for form in forms)


def _documents_are_asked_for(stack: DeployedStack, _folder: Path, _patience: float) -> bool:
    assert stack.issuer is not None
    document_id = f"asked-{next(_numbers)}"
    expect(stack, document_id, owner="alice")
    url = f"{stack.outputs['documentsUrl']}/{document_id}"
    headers = {"Authorization": f"Bearer {stack.issuer.token(sub='alice')}"}
    try:
        urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE_SECONDS).close()
    except urllib.error.HTTPError as error:
        with error:
            return error.code == 404 and json.load(error) == {"status": "pending", "docId": document_id}
    return False


def _results_are_linked(stack: DeployedStack, folder: Path, _patience: float) -> bool:
    assert stack.issuer is not None
    document_id = f"linked-{next(_numbers)}"
    expect(stack, document_id, owner="alice")
    upload(stack, document_id, pdf(folder))
    assert eventually(lambda: status(stack, document_id) == "processing_complete")
    try:
        with urllib.request.urlopen(result_link(stack, document_id, token=stack.issuer.token()), timeout=60) as result:
            return b'"pages"' in result.read()
    except urllib.error.HTTPError as error:
        error.close()
        return False


def _watchers_are_served(stack: DeployedStack, patience: float, end: Callable[[str], None], ending: str) -> bool:
    """Whether a watcher hears that a document ends, and one whose token has expired is disconnected."""
    document_id = f"watched-{next(_numbers)}"
    with _watcher(stack, document_id) as connection:
        end(document_id)
        last = receive_to_the_end(connection, timeout=patience)[-1]
        if last.get("errorCode", last["status"]) != ending:
            return False
    if stack.issuer is None:  # only tokens end before their connection
        return True
    document_id = f"expired-{next(_numbers)}"
    with _watcher(stack, document_id) as connection:
        expire(stack, rows_of_watchers(stack, document_id))
        end(document_id)
        try:
            connection.recv(timeout=patience)
        except ConnectionClosed:
            return True
    return False


@contextmanager
def _watcher(stack: DeployedStack, document_id: str) -> Iterator[ClientConnection]:
    if stack.issuer is None:
        connecting = stack.connect()
    else:
        expect(stack, document_id, owner="alice")
        connecting = stack.connect_with(stack.issuer.token(sub="alice"))
    with connecting as connection:
        assert ask(connection, action="progress", docId=document_id)["status"] == "pending"
        yield connection


# Each function on a stack that lets it do most; only a stream's fan-out would close expired connections too, with JWT.
# The token authorizer may do nothing but log.
WORKS: dict[tuple[str, str], Callable[[DeployedStack, Path, float], bool]] = {
    ("stack", "connection-handler"): _connections_are_kept,
    ("jwt_stack", "documents-processor"): _documents_are_processed,
    ("jwt_stack", "stall-watchdog"): _silent_documents_are_ended,
    ("jwt_stack", "uploads-presigner"): _uploads_are_taken,
    ("jwt_stack", "document-status"): _documents_are_asked_for,
    ("jwt_stack", "document-results"): _results_are_linked,
    ("stream_stack", "stream-fan-out"): _ends_are_told_and_noted,
    ("stream_stack", "end-events"): _ends_are_put,
}


@pytest.mark.emulator
@pytest.mark.timeout(900)  # some twenty documents, one after the other
@pytest.mark.parametrize(("stack_name", "function"), WORKS)
def test_each_statement_of_a_functions_role_is_needed(
    request: pytest.FixtureRequest, tmp_path: Path, stack_name: str, function: str
) -> None:
    stack: DeployedStack = request.getfixturevalue(stack_name)

    def works(patience: float) -> bool:
        try:
            return WORKS[stack_name, function](stack, tmp_path, patience)
        except (TimeoutError, InvalidStatus):
            return False

    def assert_works() -> None:
        assert works(PATIENCE_SECONDS), f"{function} fails with all of its statements"

    removals = list(_removals(stack, function))
    assert removals, f"the emulator enforces nothing of what {function} may do"
    needless = []
    for removal in removals:
        assert_works()  # so that what fails next fails for want of the statement
        with _without(stack, removal):
            if works(_SHORT_PATIENCE_SECONDS):
                needless.append(removal.removed)
    assert_works()
    assert not needless, f"on {stack_name}, {function} works without {needless}"


class Removal(NamedTuple):
    """A policy, what it says, and what it says without `removed`."""

    role: str
    policy: str
    document: dict[str, Any]
    rest: list[dict[str, Any]]
    removed: dict[str, Any]


def _removals(stack: DeployedStack, function: str) -> Iterator[Removal]:
    """Each statement in turn, or each of its resources where it has several: then none of them is needless."""
    iam = stack.client("iam")
    configuration = stack.client("lambda").get_function_configuration(
        FunctionName=stack.outputs["functionNames"][function]
    )
    role = configuration["Role"].rsplit("/")[-1]
    for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        for index, statement in enumerate(document["Statement"]):
            if _NOT_ENFORCED & set(statement["Action"]):
                continue
            for resource in statement["Resource"]:
                if resource.endswith((".PDF", ".Pdf")):
                    continue  # what is tried here ends in .pdf
                rest = list(document["Statement"])
                others = [other for other in statement["Resource"] if other != resource]
                rest[index : index + 1] = [{**statement, "Resource": others}] if others else []
                yield Removal(role, policy, document, rest, {**statement, "Resource": [resource]})


@contextmanager
def _without(stack: DeployedStack, removal: Removal) -> Iterator[None]:
    iam = stack.client("iam")
    name = {"RoleName": removal.role, "PolicyName": removal.policy}
    if removal.rest:
        iam.put_role_policy(**name, PolicyDocument=json.dumps({**removal.document, "Statement": removal.rest}))
    else:
        iam.delete_role_policy(**name)
    try:
        yield
    finally:
        iam.put_role_policy(**name, PolicyDocument=json.dumps(removal.document))


def test_a_caller_needs_the_grant_to_connect_to_this_very_stage(iam_stack: DeployedStack) -> None:
    iam = iam_stack.client("iam")
    role = iam.create_role(RoleName="caller", AssumeRolePolicyDocument=_TRUST)["Role"]
    account = role["Arn"].split(":")[4]
    session = iam_stack.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="test")["Credentials"]
    credentials = Credentials(session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"])

    def refusal(policy: str | None) -> str | None:
        """What a caller with this policy is told; None: it is connected, and answered."""
        if policy is not None:
            iam.put_role_policy(RoleName="caller", PolicyName="connect", PolicyDocument=policy)
        try:
            url = signed(iam_stack.outputs["websocketUrl"], credentials)
            with connect(url, open_timeout=PATIENCE_SECONDS, ping_interval=None) as connection:
                assert ask(connection, action="ping") == {"status": "pong"}
                return None
        except InvalidStatus as error:
            return f"{error.response.status_code} {error.response.body.decode()}"
        finally:
            if policy is not None:
                iam.delete_role_policy(RoleName="caller", PolicyName="connect")

    grant = _connect_grant(iam_stack, account)
    stage = iam_stack.outputs["stageName"]
    try:
        assert refusal(grant) is None
        for policy in (
            None,
            grant.replace(f"/{stage}/", "/other/"),
            grant.replace("/$connect", "/$default"),
            grant.replace(iam_stack.outputs["apiId"], "otherapi"),
        ):
            assert policy != grant
            told = refusal(policy)
            assert told is not None, f"connects with {policy}"
            assert told.startswith("403 ")
            assert "not authorized to perform: execute-api:Invoke" in told
        assert refusal(grant) is None
    finally:
        iam.delete_role(RoleName="caller")


_TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
    }
)


def _connect_grant(stack: DeployedStack, account: str) -> str:
    """The policy that `grant_connect` gives to a role, about the stack's API in place of the mock engine's."""

    def program() -> None:
        api = websocket_api(stage_name=stack.outputs["stageName"])
        api.configure_routes(lambda_function(), authorization=IamAuthorization())
        api.deploy()
        api.grant_connect(aws.iam.Role("caller", assume_role_policy=_TRUST))

    policy: str = run(program).one("RolePolicy", "caller-connect-to-api").inputs["policy"]
    region = stack.client("apigatewayv2").meta.region_name
    return policy.replace(
        arn("execute-api", "api-api-id"), f"arn:aws:execute-api:{region}:{account}:{stack.outputs['apiId']}"
    )
