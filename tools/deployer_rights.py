"""Writes docs/deploy-role.json: `python -m tools.deployer_rights`. It takes the Pulumi CLI, and some ten minutes.

The real provider lives the life of a stack that has every part, and the emulator says which rights it checks. Here is
only what the emulator cannot know: on which resources AWS takes a right, and what AWS asks for besides.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3

from local.emulator import CREDENTIALS, REGION, Emulator
from tests.engine.project import EngineProject, Outcome

FILE = Path(__file__).parent.parent / "docs" / "deploy-role.json"
Policies = dict[str, dict[str, Any]]

# Names in capital letters are filled in by the component DeployRole, and by whoever takes the file.
_ROLES = ("arn:PARTITION:iam::ACCOUNT:role/*-role-*", "arn:PARTITION:iam::ACCOUNT:role/docprogress/*")
_GATEWAY = tuple(
    f"arn:PARTITION:apigateway:REGION::/{path}"
    for path in ("account", "apis", "apis/*", "domainnames", "domainnames/*", "tags/*")
)
_LOG_GROUPS = tuple(
    f"arn:PARTITION:logs:REGION:ACCOUNT:log-group:/aws/{path}"
    for path in ("apigateway/*", "lambda/*-function-*", "vendedlogs/apigateway/*")
)
# By the names that the components give, and Pulumi's after them. What has an id of AWS's own has a * in its place.
_RESOURCES: Mapping[str, Sequence[str]] = {
    "acm": ["arn:PARTITION:acm:REGION:ACCOUNT:certificate/*"],
    "apigateway": _GATEWAY,
    "cloudfront": [
        f"arn:PARTITION:cloudfront::ACCOUNT:{kind}/*"
        for kind in ("distribution", "origin-access-control", "response-headers-policy")
    ],
    "cloudwatch": [
        "arn:PARTITION:cloudwatch:REGION:ACCOUNT:alarm:PROJECT-*",
        "arn:PARTITION:cloudwatch::ACCOUNT:dashboard/PROJECT-*",
    ],
    "cognito-idp": ["arn:PARTITION:cognito-idp:REGION:ACCOUNT:userpool/*"],
    "dynamodb": ["arn:PARTITION:dynamodb:REGION:ACCOUNT:table/*progress-table-*"],
    "events": ["arn:PARTITION:events:REGION:ACCOUNT:rule/*stall-watchdog-*"],
    "iam": _ROLES,
    "kms": ["arn:PARTITION:kms:REGION:ACCOUNT:key/*"],
    "lambda": [
        "arn:PARTITION:lambda:REGION:ACCOUNT:function:*-function-*",
        "arn:PARTITION:lambda:REGION:ACCOUNT:event-source-mapping:*",
    ],
    "logs": _LOG_GROUPS,
    "route53": ["arn:PARTITION:route53:::hostedzone/*"],
    "s3": ["arn:PARTITION:s3:::*-bucket-*"],
    "sns": ["arn:PARTITION:sns:REGION:ACCOUNT:*alarms-topic-*"],
    "sqs": ["arn:PARTITION:sqs:REGION:ACCOUNT:*-failures-*"],
    # The page's files alone: whoever previews must not read documents.
    **dict.fromkeys(
        ("s3:GetObject", "s3:GetObjectTagging", "s3:PutObject", "s3:PutObjectTagging"),
        ("arn:PARTITION:s3:::*site-bucket-*/*",),
    ),
    "route53:GetChange": ["arn:PARTITION:route53:::change/*"],
}
# For which AWS has no resource (https://docs.aws.amazon.com/service-authorization/latest/reference/).
_WITHOUT_RESOURCE = {
    *("acm:RequestCertificate", "cloudfront:CreateOriginAccessControl", "cloudfront:CreateResponseHeadersPolicy"),
    *("cloudwatch:DescribeAlarms", "cognito-idp:CreateUserPool"),
    *("cognito-idp:DescribeUserPoolDomain", "lambda:CreateEventSourceMapping"),
    *(
        "logs:DeleteQueryDefinition",
        "logs:DescribeLogGroups",
        "logs:DescribeQueryDefinitions",
        "logs:PutQueryDefinition",
    ),
    # Of a subscription that waits for its confirmation.
    *("sns:GetSubscriptionAttributes", "sns:Unsubscribe"),
}
# The first two only to learn the account, which the provider then learns in another way. The third is what the emulator
# calls lambda:GetEventSourceMapping.
_NEEDLESS = {"iam:GetUser", "iam:ListRoles", "lambda:ListEventSourceMappings"}
# The emulator checks a request by its own right alone; AWS checks what it does besides, above all to tags. Some have
# another right's name there, or none. And a life has no update of what only a new version of docprogress changes.
_COMES_WITH: Mapping[str, Sequence[str]] = {
    "acm:RequestCertificate": ["acm:AddTagsToCertificate", "acm:RemoveTagsFromCertificate"],
    "apigateway:POST": ["apigateway:PUT"],
    "cloudfront:CreateDistributionWithTags": [
        *("cloudfront:CreateDistribution", "cloudfront:TagResource", "cloudfront:UntagResource")
    ],
    "cloudwatch:PutMetricAlarm": ["cloudwatch:TagResource", "cloudwatch:UntagResource"],
    "cognito-idp:CreateUserPool": [
        "cognito-idp:TagResource",
        "cognito-idp:UntagResource",
        "cognito-idp:UpdateUserPool",
    ],
    "dynamodb:CreateTable": ["dynamodb:TagResource", "dynamodb:UntagResource"],
    "events:PutRule": ["events:TagResource", "events:UntagResource"],
    "iam:CreateRole": ["iam:TagRole", "iam:UntagRole", "iam:UpdateAssumeRolePolicy", "iam:UpdateRole"],
    "lambda:CreateEventSourceMapping": ["lambda:DeleteEventSourceMapping", "lambda:UpdateEventSourceMapping"],
    "lambda:CreateFunction": [
        *("lambda:TagResource", "lambda:UntagResource"),
        *("lambda:DeleteFunctionEventInvokeConfig", "lambda:PutFunctionEventInvokeConfig"),
        # With snapStart and provisionedConcurrency.
        *("lambda:CreateAlias", "lambda:DeleteAlias", "lambda:PublishVersion", "lambda:UpdateAlias"),
        *("lambda:DeleteProvisionedConcurrencyConfig", "lambda:PutProvisionedConcurrencyConfig"),
    ],
    "lambda:GetFunction": [
        *("lambda:GetEventSourceMapping", "lambda:GetFunctionEventInvokeConfig"),
        *("lambda:GetAlias", "lambda:GetProvisionedConcurrencyConfig"),
    ],
    "lambda:PutFunctionConcurrency": ["lambda:DeleteFunctionConcurrency"],
    "logs:CreateLogGroup": ["logs:TagResource", "logs:UntagResource"],
    "s3:CreateBucket": ["s3:TagResource", "s3:UntagResource"],
    # Of a disposable stack, with what is in it.
    "s3:DeleteBucket": ["s3:DeleteObjectVersion", "s3:ListBucketVersions"],
    "s3:PutObject": ["s3:PutObjectTagging"],
    "sns:CreateTopic": ["sns:TagResource", "sns:UntagResource"],
    "sqs:CreateQueue": ["sqs:SetQueueAttributes", "sqs:TagQueue", "sqs:UntagQueue"],
    # Of the provider from version 6 on.
    "s3:GetBucketTagging": ["s3:ListTagsForResource"],
}
_BESIDES: Sequence[Mapping[str, Any]] = [
    {
        "Effect": "Allow",
        "Action": ["iam:PassRole"],
        "Resource": list(_ROLES),
        "Condition": {
            "StringEquals": {"iam:PassedToService": ["apigateway.amazonaws.com", "lambda.amazonaws.com"]},
        },
    },
    # The first domain name of an account, and the first log of an HTTP API.
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/using-service-linked-roles.html
    {
        "Effect": "Allow",
        "Action": ["iam:CreateServiceLinkedRole"],
        "Resource": ["arn:PARTITION:iam::ACCOUNT:role/aws-service-role/*"],
        "Condition": {
            "StringEquals": {"iam:AWSServiceName": ["delivery.logs.amazonaws.com", "ops.apigateway.amazonaws.com"]},
        },
    },
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging.html
    {
        "Effect": "Allow",
        "Action": [
            *("logs:CreateLogDelivery", "logs:DeleteLogDelivery", "logs:DescribeResourcePolicies"),
            *("logs:GetLogDelivery", "logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:UpdateLogDelivery"),
        ],
        "Resource": ["*"],
    },
    # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html
    {
        "Effect": "Allow",
        "Action": [
            *("kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"),
            *("kms:ReEncryptFrom", "kms:ReEncryptTo"),
        ],
        "Resource": ["arn:PARTITION:kms:REGION:ACCOUNT:key/*"],
        "Condition": {"StringLike": {"kms:ViaService": ["dynamodb.*.amazonaws.com*"]}},
    },
]


def policies(preview: Iterable[str], deploy: Iterable[str]) -> Policies:
    """The policy documents of both roles; who deploys has both.

    Args:
        preview: the actions that previews and refreshes asked for.
        deploy: those of updates and of the end.

    Raises:
        ValueError: it is not said here on which resources AWS takes an action.
    """
    read = _with_companions(set(preview) - _NEEDLESS)
    write = _with_companions(set(deploy) - _NEEDLESS) - read
    return {"preview": _policy(read), "deploy": _policy(write, _BESIDES)}


def _with_companions(actions: set[str]) -> set[str]:
    return actions | {each for action in actions for each in _COMES_WITH.get(action, ())}


def _policy(actions: set[str], besides: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    by_resources: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for action in sorted(actions):
        by_resources[_resources_of(action)].append(action)
    statements = [
        {"Effect": "Allow", "Action": names, "Resource": list(resources)} for resources, names in by_resources.items()
    ]
    return {"Version": "2012-10-17", "Statement": [*statements, *besides]}


def _resources_of(action: str) -> tuple[str, ...]:
    if action in _WITHOUT_RESOURCE:
        return ("*",)
    resources = _RESOURCES.get(action) or _RESOURCES.get(action.partition(":")[0])
    if resources is None:
        raise ValueError(f"{action} is new; say in {__name__} on which resources AWS takes it.")
    return tuple(resources)


# Every part at once, and then each setting otherwise.
EVERYTHING: Mapping[str, Any] = {
    "authorization": "JWT",
    "createUserPool": True,
    "userPoolCallbackUrls": ["https://app.example.com/"],
    "userPoolDomainPrefix": "example-documents",
    "allowedOrigins": ["https://app.example.com"],
    "documentPipeline": True,
    "documentUploads": True,
    "documentResults": True,
    "documentConcurrency": 2,
    "statusApi": True,
    "fanOut": "stream",
    "events": True,
    "site": True,
    "alarmEmail": "on-call@example.com",
    "tracing": True,
    "domainName": "live.example.com",
    "documentsDomainName": "documents.example.com",
    "dualStack": True,
}
_CHANGED: Mapping[str, Any] = {
    "userPoolCallbackUrls": ["https://other.example.com/"],
    "allowedOrigins": ["https://other.example.com"],
    "documentConcurrency": None,
    "documentRetentionHours": 5,
    "alarmEmail": "others@example.com",
    "tracing": None,
    "domainPath": "v1",
    "dualStack": None,
    "apiThrottleRate": 77,
    "logRetentionDays": 7,
    "lambdaMemoryMegabytes": 256,
    "stallTimeoutSeconds": 90,
    "kmsKeyArn": None,
}
_ANOTHER_MODE: Mapping[str, Any] = {
    "authorization": "AWS_IAM",
    **dict.fromkeys(("createUserPool", "userPoolCallbackUrls", "userPoolDomainPrefix", "fanOut")),
}


def life(project: EngineProject) -> Iterator[tuple[str, Outcome]]:
    """Everything that a deployer does to a stack, one after the other: whose rights it takes, and what came of it."""
    root: Any = boto3.Session(
        CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"], region_name=REGION
    )
    route53, kms = (root.client(each, endpoint_url=project.emulator.endpoint_url) for each in ("route53", "kms"))
    zone = route53.create_hosted_zone(Name="example.com", CallerReference="life")["HostedZone"]["Id"]
    key = kms.create_key()["KeyMetadata"]["Arn"]
    project.set(**EVERYTHING, hostedZoneId=zone.rpartition("/")[2], kmsKeyArn=key)
    handler = project.root / "functions" / "connection_handler.py"
    yield "preview", project.preview()
    yield "deploy", project.up()
    yield "preview", project.preview()
    yield "preview", project.run("preview", "--refresh")
    yield "preview", project.refresh()
    project.set(**_CHANGED)
    yield "deploy", project.up()
    handler.write_text(handler.read_text() + "\n# changed\n")
    project.set(**_ANOTHER_MODE)
    yield "deploy", project.up()
    yield "deploy", project.destroy()


def record(folder: Path) -> dict[str, set[str]]:
    """The actions of both roles, from a life on the real engine.

    Raises:
        RuntimeError: a command of the life failed; the message has its output.
    """
    file, asked = folder / "actions", {"preview": set[str](), "deploy": set[str]()}
    with Emulator(actions=file) as emulator:
        heard = 0
        for role, outcome in life(EngineProject(folder, emulator, stack="dev")):
            if outcome.code != 0:
                raise RuntimeError(str(outcome))
            lines = file.read_text().splitlines()
            asked[role] |= {json.loads(line)["action"] for line in lines[heard:]}
            heard = len(lines)
    # What the life itself has made.
    asked["preview"] -= {"route53:CreateHostedZone", "kms:CreateKey"}
    return asked


def text(documents: Policies) -> str:
    return json.dumps(documents, indent=2) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        FILE.write_text(text(policies(**record(Path(name)))))
