"""What no stack may lack. Knows neither the engine nor the components: it looks at what is about to be deployed.

A rule of one resource sees its inputs, before it is created. A rule of the stack sees all resources together, and asks
only for values that a preview knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Declared:
    """One resource.

    Attributes:
        inputs: in Pulumi's camel case.
        parent: its URN, or empty.
    """

    type: str
    name: str
    urn: str
    inputs: Mapping[str, Any]
    parent: str = ""
    protect: bool = False


@dataclass(frozen=True)
class ResourceRule:
    """
    Attributes:
        check: yields a sentence for each violation of one resource.
    """

    name: str
    description: str
    check: Callable[[Declared], Iterator[str]]


@dataclass(frozen=True)
class StackRule:
    """
    Attributes:
        check: yields the resource and a sentence for each violation of the stack.
    """

    name: str
    description: str
    check: Callable[[Sequence[Declared]], Iterator[tuple[Declared, str]]]


# What has no ARN to name: https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsx-ray.html
_WITHOUT_ARN = {"xray:PutTraceSegments", "xray:PutTelemetryRecords", "cloudwatch:PutMetricData"}
_ALL_OF_A_TYPE = re.compile(r"(\*|(function|table|key|role|topic|queue|log-group|userpool|stream|secret)[/:]\*)")


def _rights(resource: Declared) -> Iterator[str]:
    if resource.type not in ("aws:iam/rolePolicy:RolePolicy", "aws:iam/policy:Policy"):
        return
    for statement in _statements(resource):
        if statement["Effect"] != "Allow":
            continue
        actions = _listed(statement.get("Action", "*"))
        for action in actions:
            if "*" in action:
                yield f"It allows {action}; name the actions."
        if set(actions) <= _WITHOUT_ARN:
            continue
        for arn in _listed(statement.get("Resource", "*")):
            # A condition can say of which resource it is, as that of KMS does by its encryption context.
            whole = arn == "*" or (
                not statement.get("Condition") and _ALL_OF_A_TYPE.fullmatch(arn.split(":", 5)[-1]) is not None
            )
            if whole:
                yield f"It allows {', '.join(actions)} on {arn}; name the resource."


def _throttles(resource: Declared) -> Iterator[str]:
    if resource.type != "aws:apigatewayv2/stage:Stage":
        return
    for settings in (resource.inputs.get("defaultRouteSettings") or {}, *(resource.inputs.get("routeSettings") or [])):
        for limit in ("throttlingRateLimit", "throttlingBurstLimit"):
            if (settings.get(limit) or 0) < 1:
                of = settings.get("routeKey", "the stage")
                yield f"{limit} of {of} is not set; the provider sends 0, and everyone gets 429."


def _retention(resource: Declared) -> Iterator[str]:
    if resource.type == "aws:cloudwatch/logGroup:LogGroup" and not resource.inputs.get("retentionInDays"):
        yield "retentionInDays is not set, so its events are kept for ever."


def _encryption(resource: Declared) -> Iterator[str]:
    inputs = resource.inputs
    if resource.type == "aws:sqs/queue:Queue":
        if not (inputs.get("sqsManagedSseEnabled") or inputs.get("kmsMasterKeyId")):
            yield "The queue is not encrypted; set sqsManagedSseEnabled or kmsMasterKeyId."
    elif resource.type == _ENCRYPTION:
        for rule in inputs.get("rules") or []:
            if not (rule.get("applyServerSideEncryptionByDefault") or {}).get("sseAlgorithm"):
                yield "The rule has no sseAlgorithm."


def _tls(resource: Declared) -> Iterator[str]:
    inputs = resource.inputs
    if resource.type == _POLICY:
        if not any(_refuses_plain_text(each) for each in _statements(resource)):
            yield "The bucket's policy lets requests in that come without TLS; deny them by aws:SecureTransport."
    elif resource.type == "aws:cloudfront/distribution:Distribution":
        for behaviour in (inputs["defaultCacheBehavior"], *(inputs.get("orderedCacheBehaviors") or [])):
            if behaviour["viewerProtocolPolicy"] == "allow-all":
                yield "viewerProtocolPolicy is allow-all; take redirect-to-https."
        certificate = inputs["viewerCertificate"]
        # CloudFront decides on the version where the certificate is its own.
        if not certificate.get("cloudfrontDefaultCertificate"):
            version = str(certificate.get("minimumProtocolVersion"))
            if not re.match(r"TLSv1\.[23]", version):
                yield f"minimumProtocolVersion is {version}; take TLSv1.2_2021."
    elif resource.type == "aws:apigatewayv2/domainName:DomainName":
        version = str(inputs["domainNameConfiguration"].get("securityPolicy"))
        if version != "TLS_1_2":
            yield f"securityPolicy is {version}; take TLS_1_2."


def _refuses_plain_text(statement: Mapping[str, Any]) -> bool:
    secure = statement.get("Condition", {}).get("Bool", {}).get("aws:SecureTransport")
    return (
        statement["Effect"] == "Deny"
        and statement.get("Principal") in ("*", {"AWS": "*"})
        and _listed(statement.get("Action", "")) == ["s3:*"]
        and str(secure).lower() == "false"
    )


def _public(resource: Declared) -> Iterator[str]:
    if resource.type == _ACCESS_BLOCK:
        for key in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"):
            if resource.inputs.get(key) is not True:
                yield f"{key} is not on."
    elif resource.type == _OWNERSHIP:
        if resource.inputs["rule"]["objectOwnership"] != "BucketOwnerEnforced":
            yield "ACLs are in force; take BucketOwnerEnforced."
    elif resource.type == _POLICY:
        for statement in _statements(resource):
            principals = statement.get("Principal")
            named = principals.values() if isinstance(principals, Mapping) else [principals]
            if statement["Effect"] == "Allow" and any("*" in _listed(each) for each in named):
                yield "The bucket's policy lets everybody in."


def _statements(resource: Declared) -> list[Mapping[str, Any]]:
    policy = resource.inputs["policy"]
    document = json.loads(policy) if isinstance(policy, str) else policy
    statements = document["Statement"]
    return [statements] if isinstance(statements, Mapping) else list(statements)


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


_TABLE = "aws:dynamodb/table:Table"
_BUCKET = "aws:s3/bucket:Bucket"
_OWNERSHIP = "aws:s3/bucketOwnershipControls:BucketOwnershipControls"
_ACCESS_BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
_ENCRYPTION = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
_POLICY = "aws:s3/bucketPolicy:BucketPolicy"
_GUARDS = (_OWNERSHIP, _ACCESS_BLOCK, _ENCRYPTION, _POLICY)
# What holds data, or a URL that is known outside.
_KEPT = {
    *(_TABLE, _BUCKET, "aws:apigatewayv2/api:Api", "aws:apigatewayv2/stage:Stage"),
    *("aws:apigatewayv2/domainName:DomainName", "aws:apigatewayv2/apiMapping:ApiMapping"),
    *("aws:cognito/userPool:UserPool", "aws:cloudfront/distribution:Distribution"),
}


def is_disposable(stack: Sequence[Declared]) -> bool:
    """Whether the stack says that its data may go: no table of it is protected from being deleted."""
    return not any(each.type == _TABLE and each.inputs.get("deletionProtectionEnabled") for each in stack)


def _connect_routes(stack: Sequence[Declared]) -> Iterator[Declared]:
    for each in stack:
        if each.type == "aws:apigatewayv2/route:Route" and each.inputs["routeKey"] == "$connect":
            yield each


def _authorization(stack: Sequence[Declared]) -> Iterator[tuple[Declared, str]]:
    if is_disposable(stack):
        return
    for route in _connect_routes(stack):
        if route.inputs.get("authorizationType", "NONE") == "NONE":
            yield route, "Everyone may connect, and the stack is not disposable; take AWS_IAM or JWT."


def _data_trace(stack: Sequence[Declared]) -> Iterator[tuple[Declared, str]]:
    tokens = any(route.inputs.get("authorizationType", "NONE") != "NONE" for route in _connect_routes(stack))
    if not tokens or is_disposable(stack):
        return
    for each in stack:
        if each.type == "aws:apigatewayv2/stage:Stage":
            settings = (each.inputs.get("defaultRouteSettings") or {}, *(each.inputs.get("routeSettings") or []))
            if any(one.get("dataTraceEnabled") for one in settings):
                yield each, "Data trace writes tokens into the execution logs; turn it off."


def _protection(stack: Sequence[Declared]) -> Iterator[tuple[Declared, str]]:
    if is_disposable(stack):
        return
    for each in stack:
        if each.type in _KEPT and not each.protect:
            yield each, "It holds data or a known URL, and nothing keeps a plan from deleting it; protect it."


def _tags(stack: Sequence[Declared]) -> Iterator[tuple[Declared, str]]:
    if is_disposable(stack):
        return
    for each in stack:
        if each.type == "pulumi:providers:aws":
            # A provider is told of nested settings as JSON.
            given = each.inputs.get("defaultTags") or {}
            tags = (json.loads(given) if isinstance(given, str) else given).get("tags") or {}
            for missing in sorted({"project", "stack"} - {key for key, value in tags.items() if value}):
                yield each, f"aws:defaultTags has no {missing}, so nobody can tell whose the resources are."


def _bucket_guards(stack: Sequence[Declared]) -> Iterator[tuple[Declared, str]]:
    # By their parents: a preview does not know a new bucket's name.
    for bucket in stack:
        if bucket.type == _BUCKET:
            siblings = [each.type for each in stack if each.parent == bucket.parent]
            for guard in _GUARDS:
                if siblings.count(guard) < siblings.count(_BUCKET):
                    yield bucket, f"It has no {guard.rpartition(':')[2]} beside it."


RESOURCE_RULES = (
    ResourceRule("named-rights", "No right has a * where an action or an ARN is known.", _rights),
    ResourceRule("throttles-set", "Every stage and route has a throttle above zero.", _throttles),
    ResourceRule("log-retention-set", "Every log group expires.", _retention),
    ResourceRule("encrypted", "Queues and buckets are encrypted.", _encryption),
    ResourceRule("tls-only", "Nothing is reached without TLS, or below 1.2 where that can be chosen.", _tls),
    ResourceRule("no-public-bucket", "No bucket is open to the public.", _public),
)
STACK_RULES = (
    StackRule("authenticated", "Who may connect is decided, unless the stack is disposable.", _authorization),
    StackRule("no-data-trace-with-tokens", "Tokens are not written into logs.", _data_trace),
    StackRule("protected", "What holds data or a known URL is protected, unless the stack is disposable.", _protection),
    StackRule("tagged", "Every resource says of which project and stack it is, unless that is disposable.", _tags),
    StackRule("bucket-guarded", "Every bucket has what keeps it private beside it.", _bucket_guards),
)
