"""The configuration of a stack: what is declared, what is taken, and what a wrong value is told.

Does not prove that the Pulumi CLI reads the files as local/project.py does.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.document_kinds import KIND
from infra.document_pipeline import DocumentPipelineArgs
from infra.document_progress import PROGRESS_DEFAULTS, DocumentProgressArgs
from infra.rules import RETENTION_DAYS
from infra.stack_config import ConfigError, StackConfig
from local.project import read_project
from tests.mock_engine import PROJECT_ROOT, run

DECLARED: dict[str, dict[str, Any]] = {
    key.removeprefix("docprogress:"): declaration
    for key, declaration in yaml.safe_load((PROJECT_ROOT / "Pulumi.yaml").read_text())["config"].items()
}
# The stacks that come with the project; a team's own files are the team's business.
STACKS = ["dev", "local", "prod"]
STACK_FILES = [PROJECT_ROOT / f"Pulumi.{stack}.yaml" for stack in STACKS]

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
CLOUDWATCH_DAYS = "1 3 5 7 14 30 60 90 120 150 180 365 400 545 731 1096 1827 2192 2557 2922 3288 3653"


TOKENS = {"jwtIssuer": "https://issuer.example.com", "jwtAudience": "page"}
# What a stack is asked for besides what a test is about.
DISPOSABLE = {"docprogress:disposable": "true"}


def load(config: dict[str, str], stack: str = "test") -> StackConfig:
    loaded = []
    config = DISPOSABLE | config
    run(lambda: loaded.append(StackConfig.load()), config=config, stack=stack)
    return loaded[0]


def given(**config: str) -> dict[str, str]:
    return {f"docprogress:{key}": text for key, text in config.items()}


def refusal(config: dict[str, str], stack: str = "test") -> str:
    with pytest.raises(ConfigError) as refused:
        load(config, stack)
    return str(refused.value)


def snake_case(key: str) -> str:
    return "_".join(word.lower() for word in re.findall(r"^[a-z]+|[A-Z][a-z]*", key))


def as_text(value: object) -> str:
    return {"True": "true", "False": "false"}.get(str(value), str(value))


def integers_outside(minimum: int, maximum: int) -> list[str]:
    return [str(minimum - 1), str(maximum + 1), "1.5", "many", "", "-1", "1e2", " 100", "٣٠٠"]


CERTIFICATE_ARN = "arn:aws:acm:us-east-1:123456789012:certificate/00000000-0000-0000-0000-000000000000"
WORD = KIND.example

BAD_VALUES: dict[str, tuple[str, list[str]]] = {
    "apiThrottleRate": ("a whole number from 1 up (0 would", ["0", "-1", "0.5", "1.5", "many", "", "1e3", "inf"]),
    "apiThrottleBurst": (
        "a whole number from 1 to 2147483647 (0 would",
        ["0", "-1", "0.5", "1.5", "many", "", "1e3", "inf", "2147483648", "4294967296"],
    ),
    "loggingLevel": ("one of OFF, ERROR, INFO", ["DEBUG", "info", "", "INFO "]),
    "dataTraceEnabled": ("true or false", ["yes", "1", "True", ""]),
    "detailedMetricsEnabled": ("true or false", ["yes", "0", "FALSE", ""]),
    "integrationTimeoutMilliseconds": ("a whole number from 50 to 29000", integers_outside(50, 29_000)),
    "logRetentionDays": (f"one of {', '.join(CLOUDWATCH_DAYS.split())}", ["0", "2", "31", "3654", "-7", "7.0", ""]),
    "manageAccountLogging": ("true or false", ["please", ""]),
    "documentPipeline": ("true or false", ["on", ""]),
    "connectionMaxAgeSeconds": ("a whole number from 60 to 7200", integers_outside(60, 7200)),
    "documentRetentionHours": ("a whole number from 3 to 8760", integers_outside(3, 8760)),
    "fanOut": ("one of direct, stream", ["Stream", "queue", ""]),
    "maxMessagesPerSecond": ("a whole number from 1 to 20", integers_outside(1, 20)),
    "stallTimeoutSeconds": ("a whole number from 60 to 86400", integers_outside(60, 86_400)),
    "authorization": ("one of NONE, AWS_IAM, JWT", ["none", "COGNITO"]),
    "jwtIssuer": (
        "an https URL without a user, ? and #",
        [
            "https://a.example/?a=1",
            "https://a.example/#a",
            "issuer.example.com",
            "http://issuer.example.com",
            "https://",
            "https://a b",
            "https://user:password@a.example",
            "HTTPS://a.example",
        ],
    ),
    "jwtAudience": ("audiences separated by commas, without spaces", ["one two", "one,,two", ",", "one, two"]),
    "jwtTokenSource": ("one of querystring, subprotocol", ["header", "cookie", ""]),
    "sharedDocuments": ("true or false", ["yes", ""]),
    "createUserPool": ("true or false", ["yes", ""]),
    "userPoolCallbackUrls": (
        "a JSON list of https URLs, such as",
        [
            "",
            "https://a.example",
            "{}",
            '["http://a.example/"]',
            '[""]',
            "[1]",
            '["ftp://a"]',
            # Cognito compares an address as it is, and takes no patterns.
            *('["https://A.example/"]', '["https://a.example/*"]', '["https://a.example/#in"]'),
        ],
    ),
    "userPoolDomainPrefix": (
        "1 to 63 small letters, digits and -",
        [
            *("-docs", "docs-", "Docs", "my.docs", "my_docs", "my docs", "d" * 64, "dócs"),
            # Words that Cognito keeps for itself.
            *("my-aws-docs", "amazonas", "cognito"),
        ],
    ),
    "allowedOrigins": (
        "a JSON list of origins (https://HOST in small letters, no path, no usual port), such as",
        [
            *(
                "",
                "https://a.example",
                "[*]",
                '["https://a.example/"]',
                '["http://a.example"]',
                '["a.example"]',
                "[null]",
            ),
            # A browser sends small letters, so these would match nobody.
            *('["https://a.example:443"]', '["http://localhost:80"]'),
            *('["https://A.example"]', '["HTTPS://a.example"]', '["https://a.example","https://a.Example"]'),
        ],
    ),
    "cancellation": ("true or false", ["yes", ""]),
    "disposable": ("true or false", ["yes", ""]),
    "documentKinds": (
        "a JSON list of kinds of documents, each as its suffixes, its handler and its media type, such as",
        ["", ".docx", '[".docx"]', '[".docx docx_processor"]', '["docx docx_processor a/b"]', "[null]", '[""]'],
    ),
    "documentUploads": ("true or false", ["yes", ""]),
    "documentResults": ("true or false", ["yes", ""]),
    "site": ("true or false", ["yes", ""]),
    "siteClientId": ("a client id without spaces", ["my client", "ä"]),
    "siteDomainName": (
        "a domain name in small letters",
        ["A.example.com", "https://a.example.com", "a", "*.b.c", "a..b"],
    ),
    "siteCertificateArn": (
        "the ARN of a certificate in ACM in us-east-1",
        ["certificate", CERTIFICATE_ARN.replace("us-east-1", "eu-west-1"), CERTIFICATE_ARN.replace("acm", "iam")],
    ),
    "domainName": (
        "a domain name in small letters",
        [
            "Live.example.com",
            "wss://live.example.com",
            "live",
            "*.example.com",
            "live.example.com/",
            "live.example.com.",
        ],
    ),
    "domainPath": ("one part of a path", ["/live", "a/b", "a.b", "$default", "a" * 129]),
    "documentsDomainName": ("a domain name in small letters", ["https://a.example.com", "a", "a_b.example.com"]),
    "hostedZoneId": ("the id of a hosted zone in Route 53", ["example.com", "/hostedzone/Z1", "z123", "Z" * 33]),
    "certificateArn": (
        "the ARN of a certificate in ACM",
        ["certificate", CERTIFICATE_ARN.replace("acm", "iam"), CERTIFICATE_ARN.replace("certificate/", "")],
    ),
    "dualStack": ("true or false", ["yes", ""]),
    "disableExecuteApiEndpoint": ("true or false", ["yes", ""]),
    "events": ("true or false", ["yes", ""]),
    "statusApi": ("true or false", ["yes", ""]),
    "kmsKeyArn": (
        "the ARN of a KMS key, not of an alias",
        ["alias/mine", "arn:aws:kms:eu-west-1:123456789012:alias/mine"],
    ),
    "documentMemoryMegabytes": ("a whole number from 512 to 10240", integers_outside(512, 10_240)),
    "documentConcurrency": ("a whole number from 0 to 10000", ["-1", "10001", "1.5", "many", ""]),
    "lambdaMemoryMegabytes": ("a whole number from 128 to 10240", integers_outside(128, 10_240)),
    "snapStart": ("true or false", ["yes", ""]),
    "provisionedConcurrency": ("a whole number from 0 to 10000", ["-1", "10001", "1.5", "many", ""]),
    "lambdaPackaging": ("one of lambda, host", ["zip", "Lambda", ""]),
    "alarmEmail": ("an email address", ["on-call", "a@b", "a b@c.example", "a@b@c.example"]),
    "alarmTopicArn": ("the ARN of an SNS topic", ["on-call", "arn:aws:sqs:eu-west-1:123456789012:on-call"]),
    "alarmThresholds": (
        "a JSON list of ALARM=NUMBER, with an alarm of docs/operations.md, such as",
        ["", "latency=5000", '["latency"]', '["latency=many"]', '["latency=-1"]', '["slowness=1"]', "[5000]"],
    ),
    "dashboard": ("true or false", ["yes", ""]),
    "tracing": ("true or false", ["yes", ""]),
}
# For keys whose default is empty.
EXAMPLES = {
    "authorization": "AWS_IAM",
    "jwtIssuer": "https://issuer.example.com",
    "jwtAudience": "my-client-id",
    "userPoolDomainPrefix": "my-team-docprogress",
    "siteClientId": "my-client-id",
    "siteDomainName": "progress.example.com",
    "siteCertificateArn": CERTIFICATE_ARN,
    "domainName": "live.example.com",
    "domainPath": "live",
    "documentsDomainName": "documents.example.com",
    "hostedZoneId": "Z0123456789ABCDEFGHIJ",
    "certificateArn": CERTIFICATE_ARN,
    "kmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555",
    "alarmEmail": "on-call@example.com",
    "alarmTopicArn": "arn:aws:sns:us-east-1:123456789012:on-call",
}
# What some keys are refused without.
BESIDE = {
    "domainName": {"hostedZoneId": "Z1"},
    "domainPath": {"domainName": "a.example.com", "hostedZoneId": "Z1"},
    "documentsDomainName": {"hostedZoneId": "Z1", "statusApi": "true"},
    "hostedZoneId": {"domainName": "a.example.com", "certificateArn": CERTIFICATE_ARN},
    "certificateArn": {"domainName": "a.example.com", "hostedZoneId": "Z1"},
    "disableExecuteApiEndpoint": {"domainName": "a.example.com", "hostedZoneId": "Z1"},
}
GOOD_VALUES: dict[str, list[tuple[str, object]]] = {
    "apiThrottleRate": [("1", 1), ("10000", 10_000)],
    "apiThrottleBurst": [("1", 1), ("5000", 5000), ("2147483647", 2_147_483_647)],
    "loggingLevel": [("OFF", "OFF"), ("ERROR", "ERROR"), ("INFO", "INFO")],
    "dataTraceEnabled": [("true", True), ("false", False)],
    "detailedMetricsEnabled": [("true", True), ("false", False)],
    "integrationTimeoutMilliseconds": [("50", 50), ("29000", 29_000)],
    "logRetentionDays": [(days, int(days)) for days in CLOUDWATCH_DAYS.split()],
    "manageAccountLogging": [("true", True), ("false", False)],
    "documentPipeline": [("true", True), ("false", False)],
    "connectionMaxAgeSeconds": [("60", 60), ("7200", 7200)],
    "documentRetentionHours": [("3", 3), ("8760", 8760)],
    "fanOut": [("direct", "direct"), ("stream", "stream")],
    "maxMessagesPerSecond": [("1", 1), ("20", 20)],
    "stallTimeoutSeconds": [("60", 60), ("86400", 86_400)],
    "authorization": [("", ""), ("NONE", "NONE"), ("AWS_IAM", "AWS_IAM")],
    "jwtIssuer": [
        (issuer, issuer) for issuer in ("", "https://a.example/pool", "https://a.example:8443", "https://Acme.example/")
    ],
    "jwtAudience": [("", ""), ("one", "one"), ("one,two", "one,two")],
    "jwtTokenSource": [("querystring", "querystring"), ("subprotocol", "subprotocol")],
    "sharedDocuments": [("true", True), ("false", False)],
    "createUserPool": [("false", False)],
    "userPoolCallbackUrls": [
        ("[]", []),
        ('["https://a.example/in","http://localhost/"]', ["https://a.example/in", "http://localhost/"]),
    ],
    "userPoolDomainPrefix": [(prefix, prefix) for prefix in ("", "d", "my-docs-2", "d" * 63)],
    "allowedOrigins": [
        ("[]", []),
        ('["https://a.example","http://localhost:8080"]', ["https://a.example", "http://localhost:8080"]),
        ('["*"]', ["*"]),
    ],
    "cancellation": [("true", True), ("false", False)],
    "disposable": [("true", True)],
    "documentKinds": [("[]", [])],
    "documentUploads": [("false", False)],
    "documentResults": [("false", False)],
    "site": [("true", True), ("false", False)],
    "siteClientId": [("", ""), ("0oa1b2c3:app", "0oa1b2c3:app")],
    "siteDomainName": [(name, name) for name in ("", "a.example.com", "xn--a-1.b-2.museum")],
    "siteCertificateArn": [("", ""), (CERTIFICATE_ARN, CERTIFICATE_ARN)],
    "domainName": [(name, name) for name in ("live.example.com", "xn--a-1.b-2.museum")],
    "domainPath": [("", ""), ("live", "live"), ("a_1-B", "a_1-B")],
    "documentsDomainName": [(name, name) for name in ("documents.example.com", "d.b-2.museum")],
    "hostedZoneId": [("", ""), ("Z0123456789ABCDEFGHIJ", "Z0123456789ABCDEFGHIJ")],
    "certificateArn": [
        (arn, arn)
        for arn in ("", CERTIFICATE_ARN, CERTIFICATE_ARN.replace("aws:acm:us-east-1", "aws-us-gov:acm:us-gov-west-1"))
    ],
    "dualStack": [("true", True), ("false", False)],
    "disableExecuteApiEndpoint": [("true", True), ("false", False)],
    "events": [("true", True)],
    "statusApi": [("true", True)],
    "kmsKeyArn": [
        ("", ""),
        ("arn:aws-cn:kms:cn-north-1:123456789012:key/0a-1", "arn:aws-cn:kms:cn-north-1:123456789012:key/0a-1"),
    ],
    "documentMemoryMegabytes": [("512", 512), ("10240", 10_240)],
    "documentConcurrency": [("0", 0), ("50", 50)],
    "lambdaMemoryMegabytes": [("128", 128), ("10240", 10_240)],
    "snapStart": [("true", True), ("false", False)],
    "provisionedConcurrency": [("0", 0), ("5", 5)],
    "lambdaPackaging": [("lambda", "lambda")],
    "alarmEmail": [("", ""), ("on-call@example.com", "on-call@example.com")],
    "alarmTopicArn": [
        ("", ""),
        ("arn:aws-cn:sns:cn-north-1:123456789012:a_b-1", "arn:aws-cn:sns:cn-north-1:123456789012:a_b-1"),
    ],
    "alarmThresholds": [
        ("[]", []),
        ('["latency=5000","delivery-failed=0.5"]', ["latency=5000", "delivery-failed=0.5"]),
    ],
    "dashboard": [("true", True), ("false", False)],
    "tracing": [("true", True), ("false", False)],
}


@pytest.mark.parametrize(
    ("key", "allowed", "text"),
    [(key, allowed, text) for key, (allowed, texts) in BAD_VALUES.items() for text in texts],
)
def test_a_bad_value_is_told_what_it_is_and_what_is_allowed_and_the_cure(key: str, allowed: str, text: str) -> None:
    sentence, *cure = refusal({f"docprogress:{key}": text}, stack="acme").splitlines()
    assert sentence.startswith(f'docprogress:{key} is "{text}"; it takes {allowed}')
    default = DECLARED[key]["default"]
    if default == []:
        (command,) = cure
        assert re.fullmatch(
            rf"  pulumi config (rm docprogress:{key}|set --path .*\]' (\S+|'[^']+')) --stack acme", command
        )
    else:
        # What has no default to go back to gets an example.
        value = EXAMPLES.get(key) or as_text(default)
        assert cure == [f"  pulumi config set docprogress:{key} {value} --stack acme"]
        assert load(
            {"docprogress:authorization": "NONE", **given(**BESIDE.get(key, {})), f"docprogress:{key}": value}
        ), "a cure must be taken"


@pytest.mark.parametrize(
    ("key", "text", "cure"),
    [
        (
            "allowedOrigins",
            '["https://a.example/"]',
            "set --path 'docprogress:allowedOrigins[0]' https://app.example.com",
        ),
        ("allowedOrigins", '["*","b"]', "set --path 'docprogress:allowedOrigins[1]' https://app.example.com"),
        (
            "userPoolCallbackUrls",
            '["ftp://a"]',
            "set --path 'docprogress:userPoolCallbackUrls[0]' https://app.example.com/",
        ),
        # What is no list can be given no entry.
        ("allowedOrigins", "https://a.example", "rm docprogress:allowedOrigins"),
    ],
)
def test_a_bad_entry_of_a_list_is_cured_in_its_place_and_leaves_the_list(key: str, text: str, cure: str) -> None:
    told = refusal({f"docprogress:{key}": text}, stack="acme")
    assert told.endswith(f"\n  pulumi config {cure} --stack acme"), "without the list every page could connect"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [(key, text, value) for key, pairs in GOOD_VALUES.items() for text, value in pairs],
)
def test_a_good_value_is_taken(key: str, text: str, value: object) -> None:
    loaded = load({**given(**BESIDE.get(key, {})), f"docprogress:{key}": text}).values[snake_case(key)]
    assert loaded == value
    assert isinstance(loaded, type(value))


def test_every_declared_key_has_good_and_bad_values_in_these_tables() -> None:
    assert set(BAD_VALUES) == set(GOOD_VALUES) == set(DECLARED)


def test_all_problems_are_told_at_once() -> None:
    told = refusal(
        {"docprogress:apiThrottleRate": "0", "docprogress:logRetentionDays": "2", "docprogress:logLevel": "INFO"}
    )
    for key in ("apiThrottleRate", "logRetentionDays", "logLevel"):
        assert f"docprogress:{key} is " in told
    assert told.count("pulumi config ") == 3


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("apiThrottleRat", "apiThrottleRate"),
        ("loggingLevels", "loggingLevel"),
        ("throttleBurst", "apiThrottleBurst"),
        ("apithrottlerate", "apiThrottleRate"),
        ("API_THROTTLE_RATE", "apiThrottleRate"),
        ("retentionDays", "logRetentionDays"),
    ],
)
def test_an_unknown_key_is_told_the_nearest_known_one(key: str, nearest: str) -> None:
    assert refusal({f"docprogress:{key}": "1"}, stack="acme") == (
        f"docprogress:{key} is not a configuration key of this program; did you mean docprogress:{nearest}?\n"
        f"  pulumi config rm docprogress:{key} --stack acme"
    )


def test_an_entry_that_was_set_without_path_is_told_in_quotes() -> None:
    # zsh takes the brackets of others for a pattern.
    told = refusal({"docprogress:allowedOrigins[0]": "https://app.example.com"}, stack="acme")
    assert told.endswith("pulumi config rm 'docprogress:allowedOrigins[0]' --stack acme")


def test_a_key_like_no_other_is_told_all_that_there_are() -> None:
    told = refusal({"docprogress:zzz": "1"})
    assert "docprogress:zzz is not a configuration key of this program; the known keys are " in told
    assert [key for key in DECLARED if key not in told] == []


# All that a pool of the program's own takes.
USER_POOL = {
    "authorization": "JWT",
    "createUserPool": "true",
    "userPoolCallbackUrls": '["https://a.example/"]',
    "userPoolDomainPrefix": "my-docs",
}

NAMED = {"domainName": "a.example.com", "hostedZoneId": "Z1"}

CONTRADICTIONS: list[tuple[dict[str, str], list[tuple[str, str]]]] = [
    (
        {"alarmEmail": "a@b.example", "alarmTopicArn": "arn:aws:sns:eu-west-1:123456789012:on-call"},
        [("both say who is told", "rm docprogress:alarmEmail")],
    ),
    (
        {"authorization": "JWT"},
        [
            ("jwtIssuer is empty", "set docprogress:jwtIssuer https://issuer.example.com"),
            ("jwtAudience is empty", "set docprogress:jwtAudience my-client-id"),
        ],
    ),
    (
        USER_POOL | {"authorization": "NONE"},
        [("they take authorization JWT", "set docprogress:authorization JWT")],
    ),
    (
        USER_POOL | {"jwtIssuer": "https://a.example"},
        [("both say who issues tokens", "set docprogress:createUserPool false")],
    ),
    (
        USER_POOL | {"jwtAudience": "one"},
        [("both say who issues tokens", "set docprogress:createUserPool false")],
    ),
    (
        USER_POOL | {"siteClientId": "page"},
        [("createUserPool makes the page's client", "rm docprogress:siteClientId")],
    ),
    (
        USER_POOL | {"userPoolCallbackUrls": "[]"},
        [("needs userPoolCallbackUrls", "set --path 'docprogress:userPoolCallbackUrls[0]' https://app.example.com/")],
    ),
    (
        USER_POOL | {"userPoolDomainPrefix": ""},
        [("needs userPoolDomainPrefix", "set docprogress:userPoolDomainPrefix my-team-docprogress")],
    ),
    (
        {"authorization": "JWT", "createUserPool": "true"},
        [
            (
                "createUserPool needs userPoolCallbackUrls, or nobody could sign in.",
                "set --path 'docprogress:userPoolCallbackUrls[0]' https://app.example.com/",
            ),
            (
                "createUserPool needs userPoolDomainPrefix, or nobody could sign in.",
                "set docprogress:userPoolDomainPrefix my-team-docprogress",
            ),
        ],
    ),
    (
        {"domainName": "a.example.com"},
        [("domainName needs a certificate", "set docprogress:hostedZoneId Z0123456789ABCDEFGHIJ")],
    ),
    (
        {"documentsDomainName": "a.example.com", "statusApi": "true"},
        [("documentsDomainName needs a certificate", "set docprogress:hostedZoneId Z0123456789ABCDEFGHIJ")],
    ),
    (
        {"certificateArn": CERTIFICATE_ARN},
        [("certificateArn is for a domainName", "set docprogress:domainName live.example.com")],
    ),
    (
        {"disableExecuteApiEndpoint": "true"},
        [("disableExecuteApiEndpoint needs domainName", "set docprogress:domainName live.example.com")],
    ),
    ({"domainPath": "live"}, [("domainPath needs domainName", "set docprogress:domainName live.example.com")]),
    (
        {**NAMED, "disableExecuteApiEndpoint": "true", "statusApi": "true"},
        [("of documents without an address", "set docprogress:documentsDomainName documents.example.com")],
    ),
    (
        {**NAMED, "documentsDomainName": "b.example.com"},
        [("documentUploads and documentResults, and all are off", "set docprogress:statusApi true")],
    ),
    (
        {**NAMED, "documentsDomainName": "a.example.com", "statusApi": "true"},
        [("a.example.com, which another key has", "set docprogress:documentsDomainName documents.example.com")],
    ),
    (
        {**NAMED, "site": "true", "siteDomainName": "a.example.com", "siteCertificateArn": CERTIFICATE_ARN},
        [("siteDomainName is a.example.com", "set docprogress:siteDomainName progress.example.com")],
    ),
    ({"documentUploads": "true"}, [("needs the bucket", "set docprogress:documentPipeline true")]),
    ({"documentResults": "true"}, [("needs the bucket", "set docprogress:documentPipeline true")]),
    ({"documentKinds": f'["{WORD}"]'}, [("needs the bucket", "set docprogress:documentPipeline true")]),
    (
        {"documentPipeline": "true", "documentKinds": f'["{WORD}", ".odt odt_processor a/b"]'},
        [("There is no functions/odt_processor.py", "rm --path 'docprogress:documentKinds[1]'")],
    ),
    (
        {"documentPipeline": "true", "documentKinds": '[".pdf document_processor application/pdf"]'},
        [(".pdf and .pdf end alike", "rm --path 'docprogress:documentKinds[0]'")],
    ),
    (
        {"disposable": "false"},
        [("authorization is not chosen", "set docprogress:authorization AWS_IAM")],
    ),
    (
        {"lambdaPackaging": "host"},
        [("no aws:endpoints lead to the local stack", "set docprogress:lambdaPackaging lambda")],
    ),
    (
        {
            "disposable": "false",
            "authorization": "AWS_IAM",
            "allowedOrigins": '["https://a.example","http://localhost:1"]',
        },
        [
            (
                "allowedOrigins has http://localhost:1",
                "set --path 'docprogress:allowedOrigins[1]' https://app.example.com",
            )
        ],
    ),
    (
        USER_POOL | {"disposable": "false", "userPoolCallbackUrls": '["http://localhost/"]'},
        [
            (
                "userPoolCallbackUrls has http://localhost/",
                "set --path 'docprogress:userPoolCallbackUrls[0]' https://app.example.com/",
            )
        ],
    ),
    (
        {"disposable": "false", "authorization": "AWS_IAM", "allowedOrigins": '["*"]'},
        [("every page on the web", "set --path 'docprogress:allowedOrigins[0]' https://app.example.com")],
    ),
    (
        {
            "disposable": "false",
            "authorization": "NONE",
            "allowedOrigins": '["https://a.example","*"]',
        },
        [("every page on the web", "set --path 'docprogress:allowedOrigins[1]' https://app.example.com")],
    ),
    (
        {"jwtIssuer": "http://127.0.0.1:9000"},
        [("where no function on AWS can ask it", "set docprogress:jwtIssuer https://issuer.example.com")],
    ),
    *(
        (
            {"disposable": "false", "dataTraceEnabled": "true", **authorization},
            [("would write tokens and signed URLs into the", "set docprogress:dataTraceEnabled false")],
        )
        for authorization in (
            {"authorization": "AWS_IAM"},
            USER_POOL | {"jwtTokenSource": "querystring"},
            USER_POOL | {"jwtTokenSource": "subprotocol"},
        )
    ),
]


@pytest.mark.parametrize(("config", "told"), CONTRADICTIONS, ids=[told[0][0] for _, told in CONTRADICTIONS])
def test_values_that_do_not_go_together_are_told_with_a_cure(
    config: dict[str, str], told: list[tuple[str, str]]
) -> None:
    lines = refusal({f"docprogress:{key}": text for key, text in config.items()}, stack="acme").splitlines()
    assert len(lines) == 2 * len(told), "a sentence and a cure for each"
    for (sentence, cure), line, command in zip(told, lines[::2], lines[1::2], strict=True):
        assert sentence in line
        assert command == f"  pulumi config {cure} --stack acme"


@pytest.mark.parametrize(
    ("key", "arn"),
    [
        ("kmsKeyArn", "arn:aws:kms:eu-west-1:123456789012:key/0a-1"),
        ("certificateArn", CERTIFICATE_ARN.replace("us-east-1", "eu-west-1")),
    ],
)
def test_what_another_region_has_is_refused(key: str, arn: str) -> None:
    config = {"aws:region": "us-east-1", **given(**BESIDE.get(key, {})), f"docprogress:{key}": arn}
    told = refusal(config, stack="acme")
    assert "another region than us-east-1" in told
    assert " rm " not in told, "a stack that has a key would lose it"
    assert load({**config, "aws:region": "eu-west-1"}).values[snake_case(key)] == arn


def test_an_issuer_on_this_machine_is_taken_by_the_local_stack() -> None:
    config = {
        "docprogress:jwtIssuer": "http://127.0.0.1:9000",
        "docprogress:lambdaPackaging": "host",
        "aws:endpoints": '[{"s3": "http://127.0.0.1:4566"}]',
    }
    assert load(config).values["jwt_issuer"] == "http://127.0.0.1:9000"


def test_a_pool_of_the_program_s_own_needs_no_other_issuer() -> None:
    loaded = load({f"docprogress:{key}": text for key, text in USER_POOL.items()})
    assert loaded.user_pool is not None
    assert (loaded.user_pool.domain_prefix, loaded.progress["jwt_issuer"]) == ("my-docs", "")


@pytest.mark.parametrize("stack", ["prod", "production", "prod-eu", "live", "staging"])
def test_a_stack_of_any_name_is_refused_what_it_did_not_ask_for(stack: str) -> None:
    careless = {"docprogress:disposable": "false", "docprogress:allowedOrigins": '["*"]'}
    told = refusal(careless, stack)
    assert "every page on the web" in told
    assert "authorization is not chosen" in told


def test_the_production_stack_as_shipped_waits_for_a_decision() -> None:
    config = {"docprogress:disposable": "false", **read_project(PROJECT_ROOT, "prod", {}).config}
    assert refusal(config, "prod").startswith("authorization is not chosen, and this stack is not disposable.")
    assert load({**config, "docprogress:authorization": "NONE"}, "prod")


@pytest.mark.parametrize("key", ["protected", "allowUnauthenticated"])
def test_a_key_that_is_gone_is_told_what_stands_in_its_place(key: str) -> None:
    told = refusal({f"docprogress:{key}": "true"}, stack="acme")
    assert told.startswith(f"docprogress:{key} is not a key any more: ")
    assert told.endswith(f"\n  pulumi config rm docprogress:{key} --stack acme")


def test_a_project_with_another_name_keeps_the_keys() -> None:
    given = {"docprogress:loggingLevel": "OFF", "acme:authorization": "AWS_IAM", "acme:disposable": "false"}
    loaded = []
    run(lambda: loaded.append(StackConfig.load()), config=given, project="acme")
    assert (loaded[0].values["logging_level"], loaded[0].values["authorization"]) == ("OFF", "AWS_IAM")
    with pytest.raises(ConfigError, match="docprogress:zzz is not a configuration key"):
        run(StackConfig.load, config=given | {"acme:zzz": "1"}, project="acme")


def test_data_trace_is_for_stacks_without_secrets_in_their_messages() -> None:
    traced = {"docprogress:dataTraceEnabled": "true"}
    assert load({**traced, "docprogress:authorization": "AWS_IAM"}).progress["data_trace_enabled"] is True
    open_to_all = {**traced, "docprogress:disposable": "false", "docprogress:authorization": "NONE"}
    assert load(open_to_all).progress["data_trace_enabled"] is True, "without authorization there is nothing to steal"


def test_a_production_stack_that_everyone_may_enter_is_warned_of() -> None:
    def warnings(stack: str, **config: str) -> list[str]:
        return run(StackConfig.load, stack=stack, config=given(**config)).warnings

    assert warnings("dev", disposable="true") == []
    assert warnings("prod", authorization="AWS_IAM") == []
    for unsafe in (warnings("prod", authorization="NONE"), warnings("acme", authorization="NONE")):
        (warning,) = unsafe
        assert "everyone who knows the URL may connect" in warning
        assert "pulumi config set docprogress:authorization JWT --stack " in warning


def test_an_issuer_that_nobody_asks_is_warned_of() -> None:
    config = DISPOSABLE | {"docprogress:jwtIssuer": "https://a.example", "docprogress:jwtAudience": "one"}
    (warning,) = run(StackConfig.load, stack="dev", config=config).warnings
    assert "authorization is NONE: stack dev checks no token" in warning
    assert "pulumi config set docprogress:authorization JWT --stack dev" in warning
    config |= {"docprogress:authorization": "JWT", "docprogress:dataTraceEnabled": "false"}
    assert run(StackConfig.load, stack="dev", config=config).warnings == []


def test_an_unknown_key_in_the_environment_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # This is how the engine hands configuration to a program.
    monkeypatch.setenv("PULUMI_CONFIG", '{"docprogress:zzz": "1"}')
    assert "docprogress:zzz is not a configuration key" in refusal({})


def test_keys_of_other_namespaces_are_nobody_s_business_here() -> None:
    assert (
        load({"aws:region": "eu-west-1", "pulumi:tags": "{}", "other:apiThrottleRate": "0"}).values == load({}).values
    )


def test_without_configuration_the_declared_defaults_count() -> None:
    declared = {snake_case(key): each["default"] for key, each in DECLARED.items()}
    assert load({}).values == declared | {"disposable": True}


def test_the_declared_defaults_are_those_of_the_product() -> None:
    promised = {
        "loggingLevel": "INFO",
        "dataTraceEnabled": False,
        "detailedMetricsEnabled": True,
        "integrationTimeoutMilliseconds": 29_000,
        "manageAccountLogging": True,
        "documentPipeline": False,
        "connectionMaxAgeSeconds": 7200,
    }
    assert {key: DECLARED[key]["default"] for key in promised} == promised


def test_a_key_keeps_its_name_and_default_all_the_way_to_the_component() -> None:
    arguments = {snake_case(key): each["default"] for key, each in DECLARED.items()}
    for component in (DocumentProgressArgs, DocumentPipelineArgs):
        assert set(component.__annotations__) & set(arguments), "else nothing is compared here"
    loaded = load({"docprogress:disposable": "false", "docprogress:authorization": "NONE"}).progress
    assert loaded == {name: PROGRESS_DEFAULTS[name] for name in arguments if name in PROGRESS_DEFAULTS}
    differing = {name for name in arguments if name in PROGRESS_DEFAULTS and arguments[name] != PROGRESS_DEFAULTS[name]}
    assert differing == {"authorization"}, "who may connect has to be said"


@pytest.mark.parametrize("key", DECLARED)
def test_a_declaration_says_type_and_default_and_what_it_is(key: str) -> None:
    declaration = DECLARED[key]
    assert set(declaration) - {"items"} == {"type", "default", "description"}
    types = {"integer": int, "boolean": bool, "string": str, "array": list}
    assert type(declaration["default"]) is types[declaration["type"]]
    assert len(declaration["description"]) > 20


def test_the_retention_days_are_cloudwatch_s() -> None:
    assert [str(days) for days in RETENTION_DAYS] == CLOUDWATCH_DAYS.split()


@pytest.mark.parametrize("file", STACK_FILES, ids=STACKS)
def test_a_stack_s_file_holds_declared_keys_and_only_what_differs(file: Path) -> None:
    for full_key, value in yaml.safe_load(file.read_text())["config"].items():
        namespace, key = full_key.split(":")
        if namespace == "docprogress":
            assert key in DECLARED
            assert value != DECLARED[key]["default"], f"{full_key} in {file.name} is the default already"
        else:
            assert namespace == "aws", f"{full_key} in {file.name} configures nothing that this program uses"


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_everything_in_an_account_is_tagged_with_its_project_and_stack(stack: str) -> None:
    tags = json.loads(read_project(PROJECT_ROOT, stack, {}).config["aws:defaultTags"])
    assert tags == {"tags": {"project": "docprogress", "stack": stack}}, "a bill could not tell the stacks apart"


@pytest.mark.parametrize("stack", STACKS)
def test_the_configuration_of_each_stack_is_taken(stack: str) -> None:
    project = read_project(PROJECT_ROOT, stack, {} if stack != "prod" else {"authorization": "JWT", **TOKENS})
    assert isinstance(load(dict(project.config), stack), StackConfig)


def test_messages_stay_out_of_the_logs_of_production() -> None:
    config = read_project(PROJECT_ROOT, "prod", {"authorization": "JWT", **TOKENS}).config
    assert load(dict(config)).progress["data_trace_enabled"] is False


def test_only_the_local_stack_packages_for_its_host() -> None:
    packaging = {stack: read_project(PROJECT_ROOT, stack, {}).config["docprogress:lambdaPackaging"] for stack in STACKS}
    assert packaging == {"dev": "lambda", "local": "host", "prod": "lambda"}


def test_a_plain_pulumi_up_makes_its_own_environment() -> None:
    runtime = yaml.safe_load((PROJECT_ROOT / "Pulumi.yaml").read_text())["runtime"]
    assert runtime == {"name": "python", "options": {"toolchain": "pip", "virtualenv": ".venv"}}
    assert (PROJECT_ROOT / "requirements.txt").is_file(), "the Pulumi CLI installs this file and no other"


def test_two_thresholds_of_one_alarm_are_told_which_to_remove() -> None:
    thresholds = '["latency=5000","dead-letters=2","latency=6000","dead-letters=3"]'
    assert refusal({"docprogress:alarmThresholds": thresholds}, stack="acme").splitlines() == [
        "alarmThresholds has dead-letters more than once; give each alarm one threshold.",
        "  pulumi config rm --path 'docprogress:alarmThresholds[3]' --stack acme",
        "alarmThresholds has latency more than once; give each alarm one threshold.",
        "  pulumi config rm --path 'docprogress:alarmThresholds[2]' --stack acme",
    ]
