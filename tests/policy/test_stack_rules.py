"""The rules of the policy pack over recorded graphs: each stack file passes, and each rule has something it refuses.

Does not prove that the engine asks them: `pulumi preview --policy-pack policy` does.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from local.project import read_project
from stack_rules import RESOURCE_RULES, STACK_RULES, Declared
from tests.infra.conftest import EVERYTHING
from tests.mock_engine import PROJECT_ROOT, run_main

KEPT = {**EVERYTHING, "disposable": "false", "dataTraceEnabled": "false"}
STACKS: dict[str, tuple[str, dict[str, str]]] = {
    "dev": ("dev", {}),
    "local": ("local", {}),
    "prod": ("prod", {"authorization": "AWS_IAM"}),
    "everything": ("dev", KEPT),
}


@cache
def declared(name: str) -> tuple[Declared, ...]:
    """A stack's resources, and the provider that the engine makes of its file."""
    stack, overrides = STACKS[name]
    config = read_project(PROJECT_ROOT, stack, overrides).config
    tags = {"defaultTags": config["aws:defaultTags"]} if "aws:defaultTags" in config else {}
    provider = Declared("pulumi:providers:aws", "default", "urn:provider", tags)
    return (
        *(
            Declared(each.type, each.name, each.urn, each.inputs, each.parent, each.protect)
            for each in run_main(stack, overrides)
        ),
        provider,
    )


def violations(stack: tuple[Declared, ...]) -> Iterator[tuple[str, str, str]]:
    """Each rule's name, the resource's and the sentence."""
    for each in stack:
        for rule in RESOURCE_RULES:
            yield from ((rule.name, each.name, sentence) for sentence in rule.check(each))
    for stack_rule in STACK_RULES:
        yield from ((stack_rule.name, each.name, sentence) for each, sentence in stack_rule.check(stack))


def changed(stack: tuple[Declared, ...], name: str, change: Callable[[Any], Any]) -> tuple[Declared, ...]:
    """The stack with other inputs of one resource."""
    assert [each.name for each in stack].count(name) == 1
    return tuple(
        dataclasses.replace(each, inputs=change(json.loads(json.dumps(each.inputs, default=repr))))
        if each.name == name
        else each
        for each in stack
    )


def with_(**inputs: Any) -> Callable[[Any], Any]:
    return lambda given: {**given, **inputs}


def without(*keys: str) -> Callable[[Any], Any]:
    return lambda given: {key: value for key, value in given.items() if key not in keys}


def with_statement(**statement: Any) -> Callable[[Any], Any]:
    def change(given: Any) -> Any:
        document = json.loads(given["policy"])
        document["Statement"].append({"Effect": "Allow", **statement})
        return {**given, "policy": json.dumps(document)}

    return change


def in_settings(key: str, **settings: Any) -> Callable[[Any], Any]:
    def change(given: Any) -> Any:
        value = given[key]
        return {**given, key: [{**each, **settings} for each in value] if isinstance(value, list) else value | settings}

    return change


@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_of_the_program_keeps_every_rule(stack: str) -> None:
    assert list(violations(declared(stack))) == []


WRONG: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("named-rights", "api-invoke-functions", with_statement(Action=["dynamodb:*"], Resource=["arn:a:b:c:d:e"])),
    ("named-rights", "api-invoke-functions", with_statement(Action="s3:GetObject", Resource="*")),
    ("named-rights", "api-invoke-functions", with_statement(NotAction="iam:*", NotResource="arn:a:b:c:d:e")),
    (
        "named-rights",
        "api-invoke-functions",
        with_statement(Action="dynamodb:GetItem", Resource="arn:aws:dynamodb:eu-west-1:123456789012:table/*"),
    ),
    ("throttles-set", "api-stage", without("defaultRouteSettings")),
    ("throttles-set", "api-stage", in_settings("routeSettings", throttlingBurstLimit=0)),
    ("throttles-set", "documents-api-stage", in_settings("defaultRouteSettings", throttlingRateLimit=None)),
    ("log-retention-set", "api-access-logs", without("retentionInDays")),
    ("log-retention-set", "api-access-logs", with_(retentionInDays=0)),
    ("encrypted", "documents-failures", with_(sqsManagedSseEnabled=False)),
    ("encrypted", "documents-encryption", with_(rules=[{}])),
    ("tls-only", "site-tls-only", with_(policy=json.dumps({"Version": "2012-10-17", "Statement": []}))),
    ("tls-only", "site-distribution", in_settings("defaultCacheBehavior", viewerProtocolPolicy="allow-all")),
    (
        "tls-only",
        "site-distribution",
        with_(viewerCertificate={"acmCertificateArn": "arn", "minimumProtocolVersion": "TLSv1.1_2016"}),
    ),
    ("tls-only", "api-domain-name", in_settings("domainNameConfiguration", securityPolicy="TLS_1_0")),
    ("no-public-bucket", "documents-no-public-access", with_(blockPublicPolicy=False)),
    ("no-public-bucket", "documents-no-public-access", without("restrictPublicBuckets")),
    ("no-public-bucket", "site-ownership", with_(rule={"objectOwnership": "ObjectWriter"})),
    ("no-public-bucket", "site-tls-only", with_statement(Principal="*", Action="s3:GetObject", Resource="arn")),
    ("no-public-bucket", "site-tls-only", with_statement(Principal={"AWS": ["*"]}, Action="s3:GetObject")),
    ("authenticated", "api-$connect-route", with_(authorizationType="NONE")),
    ("authenticated", "api-$connect-route", without("authorizationType")),
    ("no-data-trace-with-tokens", "api-stage", in_settings("defaultRouteSettings", dataTraceEnabled=True)),
    ("no-data-trace-with-tokens", "api-stage", in_settings("routeSettings", dataTraceEnabled=True)),
    ("tagged", "default", without("defaultTags")),
    ("tagged", "default", with_(defaultTags={"tags": {"project": "docprogress", "stack": ""}})),
]


@pytest.mark.parametrize(("rule", "name", "change"), WRONG, ids=[f"{rule} {name}" for rule, name, _ in WRONG])
def test_what_breaks_a_rule_is_refused_by_that_rule_alone(rule: str, name: str, change: Callable[[Any], Any]) -> None:
    found = list(violations(changed(declared("everything"), name, change)))
    assert {(by, of) for by, of, _ in found} == {(rule, name)}


@pytest.mark.parametrize(
    "name", ["progress-table", "api-api", "documents-bucket", "users-pool", "site-distribution", "api-domain-name"]
)
def test_what_holds_data_or_a_url_is_protected(name: str) -> None:
    stack = tuple(
        dataclasses.replace(each, protect=False) if each.name == name else each for each in declared("everything")
    )
    assert [(rule, of) for rule, of, _ in violations(stack)] == [("protected", name)]


@pytest.mark.parametrize("guard", ["tls-only", "ownership", "encryption", "no-public-access"])
def test_a_bucket_without_one_of_its_guards_is_refused(guard: str) -> None:
    stack = tuple(each for each in declared("everything") if each.name != f"documents-{guard}")
    assert [(rule, of) for rule, of, _ in violations(stack)] == [("bucket-guarded", "documents-bucket")]


def test_a_disposable_stack_may_be_open_and_unprotected() -> None:
    stack = changed(declared("dev"), "api-$connect-route", with_(authorizationType="NONE"))
    assert list(violations(stack)) == []
    assert not [each for each in stack if each.protect]


def test_every_rule_is_broken_by_a_test() -> None:
    broken = {rule for rule, _, _ in WRONG} | {"protected", "bucket-guarded"}
    assert broken == {rule.name for rule in (*RESOURCE_RULES, *STACK_RULES)}


def test_tags_reach_a_provider_as_json() -> None:
    tags = json.dumps({"tags": {"project": "docprogress", "stack": "dev"}})
    assert list(violations(changed(declared("everything"), "default", with_(defaultTags=tags)))) == []
