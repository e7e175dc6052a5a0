"""The one mock Pulumi engine: runs a program or a component as the engine would and keeps what it declared.

It takes any input that the Pulumi SDK sends, so it does not prove that AWS would.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import runpy
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime import mocks, rpc
from pulumi.runtime.settings import Settings
from pulumi.runtime.stack import run_in_stack

from local.engine_process import plain
from local.project import read_project

PROJECT_ROOT = Path(__file__).parent.parent

# China's partition: there, an "arn:aws:" or "amazonaws.com" that is written by hand is found out.
PARTITION = "aws-cn"
REGION = "cn-north-1"
ACCOUNT = "123456789012"
SUFFIX = "1a2b3c4"
"""Ends each physical name that a program leaves to Pulumi."""


def arn(service: str, resource: str) -> str:
    return f"arn:{PARTITION}:{service}:{REGION}:{ACCOUNT}:{resource}"


# What AWS answers for a type, beside the inputs: its id and its other outputs, in terms of the logical name
# {logical}, the physical name {name}, the id {id} and the {scheme} of an API's kind. An id that AWS makes up
# never looks like a name.
_NAMED, _MADE_UP = "{name}", "{logical}-id"
_ANSWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "aws:apigateway/account:Account": (_MADE_UP, {}),
    "aws:apigatewayv2/api:Api": (
        _MADE_UP,
        {
            "apiEndpoint": f"{{scheme}}://{{id}}.execute-api.{REGION}.amazonaws.com.cn",
            "executionArn": arn("execute-api", "{id}"),
        },
    ),
    "aws:acm/certificate:Certificate": (
        _MADE_UP,
        {
            "arn": arn("acm", "certificate/{id}"),
            "domainValidationOptions": [
                {
                    "domainName": "{domainName}",
                    "resourceRecordName": "_token.{domainName}.",
                    "resourceRecordType": "CNAME",
                    "resourceRecordValue": "_answer.acm-validations.aws.",
                }
            ],
        },
    ),
    "aws:acm/certificateValidation:CertificateValidation": (_MADE_UP, {}),
    "aws:apigatewayv2/apiMapping:ApiMapping": (_MADE_UP, {}),
    "aws:apigatewayv2/domainName:DomainName": (
        "{domainName}",
        {
            "domainNameConfiguration": {
                "targetDomainName": f"d-{{logical}}.execute-api.{REGION}.amazonaws.com.cn",
                "hostedZoneId": "Z0OFAPIGATEWAY",
            }
        },
    ),
    "aws:apigatewayv2/authorizer:Authorizer": (_MADE_UP, {}),
    "aws:apigatewayv2/deployment:Deployment": (_MADE_UP, {}),
    "aws:apigatewayv2/integration:Integration": (_MADE_UP, {}),
    "aws:apigatewayv2/route:Route": (_MADE_UP, {}),
    "aws:apigatewayv2/routeResponse:RouteResponse": (_MADE_UP, {}),
    "aws:apigatewayv2/stage:Stage": (_NAMED, {"executionArn": arn("execute-api", "{apiId}/{name}")}),
    "aws:cloudfront/distribution:Distribution": (
        _MADE_UP,
        {"arn": f"arn:{PARTITION}:cloudfront::{ACCOUNT}:distribution/{{id}}", "domainName": "{id}.cloudfront.cn"},
    ),
    "aws:cloudfront/originAccessControl:OriginAccessControl": (_MADE_UP, {}),
    "aws:cloudfront/responseHeadersPolicy:ResponseHeadersPolicy": (_MADE_UP, {}),
    "aws:cloudwatch/compositeAlarm:CompositeAlarm": ("{alarmName}", {"arn": arn("cloudwatch", "alarm:{alarmName}")}),
    "aws:cloudwatch/dashboard:Dashboard": (_NAMED, {}),
    "aws:cloudwatch/eventRule:EventRule": (_NAMED, {"arn": arn("events", "rule/{name}")}),
    "aws:cloudwatch/eventTarget:EventTarget": (_MADE_UP, {}),
    "aws:cloudwatch/logGroup:LogGroup": (_NAMED, {"arn": arn("logs", "log-group:{name}")}),
    "aws:cloudwatch/logMetricFilter:LogMetricFilter": (_NAMED, {}),
    "aws:cloudwatch/metricAlarm:MetricAlarm": (_NAMED, {"arn": arn("cloudwatch", "alarm:{name}")}),
    "aws:cloudwatch/queryDefinition:QueryDefinition": (_MADE_UP, {}),
    "aws:cognito/userPool:UserPool": (
        _MADE_UP,
        {
            "arn": arn("cognito-idp", "userpool/{id}"),
            "endpoint": f"cognito-idp.{REGION}.amazonaws.com.cn/{{id}}",
        },
    ),
    "aws:cognito/userPoolClient:UserPoolClient": (_MADE_UP, {}),
    "aws:cognito/userPoolDomain:UserPoolDomain": ("{domain}", {}),
    "aws:dynamodb/table:Table": (
        _NAMED,
        {
            "arn": arn("dynamodb", "table/{name}"),
            "streamArn": arn("dynamodb", "table/{name}/stream/2026-01-01T00:00:00.000"),
        },
    ),
    "aws:iam/role:Role": (_NAMED, {"arn": f"arn:{PARTITION}:iam::{ACCOUNT}:role/{{name}}"}),
    "aws:iam/rolePolicy:RolePolicy": ("{role}:{name}", {}),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": (_MADE_UP, {}),
    "aws:lambda/alias:Alias": (
        "{functionName}/{name}",
        {
            "arn": arn("lambda", "function:{functionName}:{name}"),
            "invokeArn": f"arn:{PARTITION}:apigateway:{REGION}:lambda:path/2015-03-31/functions/"
            f"{arn('lambda', 'function:{functionName}:{name}')}/invocations",
        },
    ),
    "aws:lambda/eventSourceMapping:EventSourceMapping": (_MADE_UP, {}),
    "aws:lambda/function:Function": (
        _NAMED,
        {
            "arn": arn("lambda", "function:{name}"),
            "invokeArn": f"arn:{PARTITION}:apigateway:{REGION}:lambda:path/2015-03-31/functions/"
            f"{arn('lambda', 'function:{name}')}/invocations",
            "version": "7",
        },
    ),
    "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig": (_MADE_UP, {}),
    "aws:lambda/permission:Permission": (_MADE_UP, {}),
    "aws:route53/record:Record": (_MADE_UP, {"fqdn": "{name}"}),
    "aws:lambda/provisionedConcurrencyConfig:ProvisionedConcurrencyConfig": (_MADE_UP, {}),
    "aws:s3/bucket:Bucket": (
        _NAMED,
        {
            "bucket": "{name}",
            "arn": f"arn:{PARTITION}:s3:::{{name}}",
            "bucketDomainName": "{name}.s3.amazonaws.com.cn",
            "bucketRegionalDomainName": f"{{name}}.s3.{REGION}.amazonaws.com.cn",
        },
    ),
    "aws:s3/bucketCorsConfiguration:BucketCorsConfiguration": (_MADE_UP, {}),
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": (_MADE_UP, {}),
    "aws:s3/bucketNotification:BucketNotification": (_MADE_UP, {}),
    "aws:s3/bucketObjectv2:BucketObjectv2": (_MADE_UP, {}),
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": (_MADE_UP, {}),
    "aws:s3/bucketPolicy:BucketPolicy": (_MADE_UP, {}),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": (_MADE_UP, {}),
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": (_MADE_UP, {}),
    "aws:sns/topic:Topic": (_NAMED, {"arn": arn("sns", "{name}")}),
    "aws:sns/topicSubscription:TopicSubscription": (_MADE_UP, {}),
    "aws:sqs/queue:Queue": (_MADE_UP, {"arn": arn("sqs", "{name}"), "url": "https://sqs/{name}"}),
}
# What AWS answers where a program reads what is there already.
_FOUND: dict[str, dict[str, str]] = {
    "aws:apigateway/account:Account": {"cloudwatchRoleArn": f"arn:{PARTITION}:iam::{ACCOUNT}:role/of-another-api"},
}


@dataclass(frozen=True)
class Resource:
    """One registration, as the engine got it.

    Attributes:
        inputs: in Pulumi's camel case; secrets unwrapped, absent where None.
        parent: the URN of the parent.
        aliases: the URN of the parent and the name that it had before; empty where they are as they are.
        dependencies: the URNs that stand before this one, by its inputs or by `depends_on`; a component
            among them is there by its children, and what the program only reads is not among them.
    """

    urn: str
    type: str
    name: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    parent: str
    dependencies: frozenset[str]
    retain_on_delete: bool
    protect: bool
    ignore_changes: tuple[str, ...] = ()
    replace_on_changes: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()

    @property
    def id(self) -> str:
        return str(self.outputs["id"])


@dataclass
class Graph:
    """What a program declared.

    Attributes:
        outputs: the stack's.
        completed: the URNs of the components that said that all of their children are declared.
        warnings: what Pulumi had to say at warning level and above; pulumi_aws tells of deprecated inputs here.
    """

    resources: dict[str, Resource] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    completed: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self.resources.values())

    def of(self, resource_type: str) -> list[Resource]:
        """All of a type, sorted by name. The type is a whole token or its last word, such as `Role`."""
        found = [each for each in self if resource_type in (each.type, each.type.rpartition(":")[2])]
        return sorted(found, key=lambda each: each.name)

    def one(self, resource_type: str, name: str | None = None) -> Resource:
        found = [each for each in self.of(resource_type) if name in (None, each.name)]
        assert len(found) == 1, f"{len(found)} of {resource_type} {name or ''}; there are {self.names(resource_type)}"
        return found[0]

    def names(self, resource_type: str) -> list[str]:
        return [each.name for each in self.of(resource_type)]

    def parent(self, resource: Resource) -> Resource | None:
        """None for what is at the top of the stack."""
        return self.resources.get(resource.parent)

    def before(self, resource: Resource) -> set[str]:
        """The names of all that must stand before a resource, directly or not."""
        found: set[str] = set()
        unread = list(resource.dependencies)
        while unread:
            urn = unread.pop()
            if urn not in found:
                found.add(urn)
                unread += self.resources[urn].dependencies
        return {self.resources[urn].name for urn in found}


def run(
    program: Callable[[], object],
    *,
    stack: str = "test",
    project: str = "docprogress",
    config: Mapping[str, str] | None = None,
    answers: Mapping[str, Mapping[str, str]] | None = None,
) -> Graph:
    """Run a program and return what it declared, once all of it is registered.

    Pulumi keeps its state in context variables, so each run has a context of its own and leaves nothing behind.

    Args:
        config: by full key, as text.
        answers: for a logical name, what AWS answers in place of the usual outputs (`id` among them).

    Raises:
        Exception: what the program raised.
    """
    graph = Graph()

    async def execute() -> None:
        pulumi.runtime.set_all_config(dict(config or {}), [])
        Settings(
            project=project,
            stack=stack,
            organization="organization",
            root_directory=str(PROJECT_ROOT),
            monitor=_Monitor(_Provider(answers or {}), graph),
            engine=mocks.MockEngine(_log_to(graph)),
            dry_run=False,
        )
        await run_in_stack(lambda: _nothing(program()))

    contextvars.copy_context().run(asyncio.run, execute())
    return graph


def run_main(
    stack: str,
    overrides: Mapping[str, str] | None = None,
    *,
    answers: Mapping[str, Mapping[str, str]] | None = None,
) -> Graph:
    """Run the real `__main__.py` with the configuration of a stack, as `pulumi up --stack` reads it."""
    project = read_project(PROJECT_ROOT, stack, overrides or {})
    main = str(project.program / "__main__.py")
    return run(lambda: runpy.run_path(main, run_name="__main__"), stack=stack, config=project.config, answers=answers)


class _Provider(mocks.Mocks):
    def __init__(self, answers: Mapping[str, Mapping[str, str]]) -> None:
        self._answers = answers

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        if args.resource_id and args.typ in _FOUND:
            return args.resource_id, {**args.inputs, **_FOUND[args.typ], **self._answers.get(args.name, {})}
        if not args.custom:
            return None, args.inputs
        # A user's own alarm or record must not break every test of the program.
        service = args.typ.partition(":")[2].partition("/")[0]
        id_template, templates = _ANSWERS.get(args.typ, (_MADE_UP, {"arn": arn(service, "{name}")}))
        words = {key: value for key, value in args.inputs.items() if isinstance(value, str)}
        words["name"] = words.get("name") or words.get("bucket") or f"{args.name}-{SUFFIX}"
        words["logical"] = args.name
        words["scheme"] = "wss" if words.get("protocolType") == "WEBSOCKET" else "https"
        given = self._answers.get(args.name, {})
        words["id"] = given.get("id") or id_template.format(**words)
        outputs = _filled_in(templates, words)
        return words["id"], {**args.inputs, "name": words["name"], **outputs, **given}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise NotImplementedError(f"The program calls {args.token}, to which tests/mock_engine.py has no answer.")


def _filled_in(template: Any, words: Mapping[str, str]) -> Any:
    if isinstance(template, dict):
        return {key: _filled_in(each, words) for key, each in template.items()}
    if isinstance(template, list):
        return [_filled_in(each, words) for each in template]
    return template.format(**words)


class _Monitor(mocks.MockMonitor):
    """Keeps the requests whole: Mocks are not told of parents, dependencies and options."""

    def __init__(self, provider: _Provider, graph: Graph) -> None:
        super().__init__(provider)
        self._graph = graph
        self._read: set[str] = set()
        self._lock = threading.Lock()

    def ReadResource(self, request: Any) -> Any:
        with _loop_of_a_thread():
            response = super().ReadResource(request)  # type: ignore[no-untyped-call]  # pulumi's
        self._read.add(response.urn)
        return response

    def RegisterResource(self, request: Any) -> Any:
        with _loop_of_a_thread():
            response = super().RegisterResource(request)  # type: ignore[no-untyped-call]  # pulumi's
            inputs = plain(rpc.deserialize_properties(request.object))
            outputs = plain(rpc.deserialize_properties(response.object)) | {"id": response.id}
        resource = Resource(
            urn=response.urn,
            type=request.type,
            name=request.name,
            inputs=inputs,
            outputs=outputs,
            parent=request.parent,
            dependencies=frozenset(request.dependencies) - self._read,
            retain_on_delete=request.retainOnDelete,
            protect=request.protect,
            ignore_changes=tuple(request.ignoreChanges),
            replace_on_changes=tuple(request.replaceOnChanges),
            aliases=tuple((each.spec.parentUrn, each.spec.name) for each in request.aliases),
        )
        with self._lock:
            assert resource.urn not in self._graph.resources, f"{resource.urn} is declared twice"
            if resource.type != "pulumi:pulumi:Stack":
                self._graph.resources[resource.urn] = resource
        return response

    def RegisterResourceOutputs(self, request: Any) -> Any:
        self._graph.completed.add(request.urn)
        if "::pulumi:pulumi:Stack::" in request.urn:
            self._graph.outputs = plain(rpc.deserialize_properties(request.outputs))
        return super().RegisterResourceOutputs(request)  # type: ignore[no-untyped-call]  # pulumi's


@contextlib.contextmanager
def _loop_of_a_thread() -> Iterator[None]:
    """Pulumi makes each of its threads an event loop, and leaves it open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _log_to(graph: Graph) -> logging.Logger:
    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            graph.warnings.append(record.getMessage())

    logger = logging.Logger("pulumi", logging.WARNING)
    logger.addHandler(Keep())
    return logger


def _nothing(_result: object) -> None:
    """Pulumi awaits what a program returns, and a module's globals are no awaitable."""
