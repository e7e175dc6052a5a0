"""Domain names of one's own: the certificate, what they lead to, the records, and the URLs that follow.

Does not prove that a name resolves, nor that API Gateway takes what is posted through it.
"""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from infra.custom_domain import CustomDomainArgs
from infra.documents_api import DocumentsApiArgs
from tests.infra.samples import deployed_api, document_progress, lambda_function, policy, websocket_api
from tests.mock_engine import REGION, Graph, arn, run

CERTIFICATE = arn("acm", "certificate/mine")
ZONE = "Z0123456789ABCDEFGHIJ"
IN_ROUTE_53 = {"domain_name": "live.example.com", "hosted_zone_id": ZONE}
ELSEWHERE = {"domain_name": "live.example.com", "certificate_arn": CERTIFICATE}
HOST = f"api-api-id.execute-api.{REGION}.amazonaws.com.cn"
TARGET = f"d-api-domain-name.execute-api.{REGION}.amazonaws.com.cn"


def api(**args: Any) -> Graph:
    def program() -> None:
        deployed = deployed_api(**args)
        for name in ("url", "callback_url", "domain_target"):
            pulumi.export(name, getattr(deployed, name))
        deployed.grant_manage_connections(lambda_function("worker"))

    return run(program)


def domain_of(graph: Graph) -> dict[str, Any]:
    inputs: dict[str, Any] = graph.one("DomainName").inputs["domainNameConfiguration"]
    return inputs


@pytest.fixture(scope="module")
def in_route_53() -> Graph:
    return api(**IN_ROUTE_53)


def test_a_name_in_route_53_has_a_certificate_that_its_zone_validates(in_route_53: Graph) -> None:
    certificate = in_route_53.one("Certificate")
    assert certificate.inputs == {"domainName": "live.example.com", "validationMethod": "DNS"}
    record = in_route_53.one("Record", "api-domain-validation-record")
    assert record.inputs == {
        "zoneId": ZONE,
        "name": "_token.live.example.com.",
        "type": "CNAME",
        "records": ["_answer.acm-validations.aws."],
        "ttl": 300,
    }
    validation = in_route_53.one("CertificateValidation")
    assert validation.inputs == {
        "certificateArn": certificate.outputs["arn"],
        "validationRecordFqdns": [record.outputs["fqdn"]],
    }
    assert validation.name in in_route_53.before(in_route_53.one("DomainName")), (
        "API Gateway refuses a certificate that is not issued yet"
    )


def test_a_name_is_regional_and_takes_no_tls_below_1_2(in_route_53: Graph) -> None:
    assert in_route_53.one("DomainName").inputs == {
        "domainName": "live.example.com",
        "domainNameConfiguration": {
            "certificateArn": in_route_53.one("Certificate").outputs["arn"],
            "endpointType": "REGIONAL",
            "securityPolicy": "TLS_1_2",
            "ipAddressType": "ipv4",
        },
    }
    assert in_route_53.one("ApiMapping").inputs == {
        "apiId": "api-api-id",
        "stage": "live",
        "domainName": "live.example.com",
    }


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_the_zone_leads_to_the_name_once_it_is_mapped(kind: str, in_route_53: Graph) -> None:
    record = in_route_53.one("Record", f"api-domain-{kind.lower()}-record")
    assert record.inputs == {
        "zoneId": ZONE,
        "name": "live.example.com",
        "type": kind,
        "aliases": [{"name": TARGET, "zoneId": "Z0OFAPIGATEWAY", "evaluateTargetHealth": False}],
    }, "an alias, since a zone's own name takes no CNAME"
    assert "api-domain-mapping" in in_route_53.before(record)


def test_without_a_zone_the_target_is_for_dns_elsewhere() -> None:
    graph = api(**ELSEWHERE)
    assert domain_of(graph)["certificateArn"] == CERTIFICATE
    assert [each.name for each in graph if each.type.split("/")[0] in ("aws:acm", "aws:route53")] == []
    assert graph.outputs["domain_target"] == TARGET


def test_a_certificate_of_ones_own_serves_a_name_in_route_53_too() -> None:
    graph = api(**IN_ROUTE_53, certificate_arn=CERTIFICATE)
    assert domain_of(graph)["certificateArn"] == CERTIFICATE
    assert graph.names("Record") == ["api-domain-a-record", "api-domain-aaaa-record"]


def test_what_is_only_known_later_is_taken_too() -> None:
    def program() -> None:
        later = pulumi.Output.from_input(ZONE), pulumi.Output.from_input(CERTIFICATE)
        deployed_api(domain_name="live.example.com", hosted_zone_id=later[0], certificate_arn=later[1])

    graph = run(program)
    assert domain_of(graph)["certificateArn"] == CERTIFICATE
    assert {each.inputs["zoneId"] for each in graph.of("Record")} == {ZONE}


def test_pages_connect_to_the_name_and_workers_post_without_it(in_route_53: Graph) -> None:
    assert in_route_53.outputs == {
        "url": "wss://live.example.com",
        # Of a DNS that fails, or is not there yet, no worker needs to know.
        "callback_url": f"https://{HOST}/live",
        "domain_target": TARGET,
    }


def test_a_path_follows_the_name() -> None:
    graph = api(**ELSEWHERE, domain_path="v1", disable_execute_api_endpoint=True)
    mapping = graph.one("ApiMapping")
    assert mapping.inputs["apiMappingKey"] == "v1"
    assert mapping.replace_on_changes == ("apiMappingKey",), "in place, the protection would not speak"
    assert graph.outputs["url"] == "wss://live.example.com/v1"
    assert graph.outputs["callback_url"] == "https://live.example.com/v1"


def test_where_the_name_is_the_only_way_workers_post_through_it() -> None:
    graph = api(**IN_ROUTE_53, disable_execute_api_endpoint=True)
    assert graph.one("Api").inputs["disableExecuteApiEndpoint"] is True
    # The stage's path is part of API Gateway's own URL alone.
    assert graph.outputs["callback_url"] == "https://live.example.com"


def test_what_is_posted_through_a_name_takes_the_same_right() -> None:
    def of(**args: Any) -> Any:
        return policy(api(**args), "worker-manage-connections-of-api")

    assert of() == of(**IN_ROUTE_53, disable_execute_api_endpoint=True), "IAM knows the API by its id"


def test_turning_the_execute_api_endpoint_off_and_on_is_deployed() -> None:
    def trigger(**args: Any) -> Any:
        return api(**args).one("Deployment").inputs["triggers"]

    assert trigger(**IN_ROUTE_53) == trigger()
    assert trigger(**IN_ROUTE_53, disable_execute_api_endpoint=True) != trigger()


def test_both_the_api_and_its_name_answer_over_ipv6() -> None:
    graph = api(**ELSEWHERE, dual_stack=True)
    assert graph.one("Api").inputs["ipAddressType"] == domain_of(graph)["ipAddressType"] == "dualstack"


@pytest.mark.parametrize("disposable", [False, True])
def test_a_stack_that_is_not_disposable_keeps_its_name(disposable: bool) -> None:
    graph = api(**IN_ROUTE_53, disposable=disposable)
    protected = {each.name for each in graph if each.protect and "domain" in each.name}
    kept = {f"api-domain-{part}" for part in ("name", "mapping", "a-record", "aaaa-record")}
    assert protected == (set() if disposable else kept)


def test_the_apis_of_a_stack_have_names_of_their_own() -> None:
    def program() -> None:
        progress = document_progress(
            **IN_ROUTE_53,
            documents_domain_name="documents.example.com",
            domain_path="v1",
            dual_stack=True,
            disable_execute_api_endpoint=True,
            status_api=True,
        )
        pulumi.export("documents", progress.documents_url)
        pulumi.export("target", progress.documents_domain_target)
        pulumi.export("worker", progress.worker_environment)

    graph = run(program)
    assert {each.inputs["domainName"] for each in graph.of("DomainName")} == {
        "live.example.com",
        "documents.example.com",
    }
    mapping = graph.one("ApiMapping", "documents-api-domain-mapping")
    assert mapping.inputs == {
        "apiId": "documents-api-api-id",
        "stage": "$default",
        "domainName": "documents.example.com",
    }
    for each in graph.of("Api"):
        assert (each.inputs["ipAddressType"], each.inputs["disableExecuteApiEndpoint"]) == ("dualstack", True)
    assert graph.outputs["documents"] == "https://documents.example.com/documents"
    assert graph.outputs["target"] == f"d-documents-api-domain-name.execute-api.{REGION}.amazonaws.com.cn"
    assert graph.outputs["worker"]["CALLBACK_URL"] == "https://live.example.com/v1"
    addresses = json.dumps([each.inputs.get("environment") for each in graph.of("Function")])
    assert ".execute-api." not in addresses, "nobody answers there"


def test_an_api_without_a_name_is_declared_as_ever() -> None:
    graph = api()
    assert graph.outputs == {"url": f"wss://{HOST}/live", "callback_url": f"https://{HOST}/live"}
    assert "disableExecuteApiEndpoint" not in graph.one("Api").inputs


@pytest.mark.parametrize(
    ("declare", "sentence"),
    [
        (lambda: CustomDomainArgs(domain_name="live.example.com"), "neither hosted_zone_id nor certificate_arn"),
        (lambda: websocket_api(disable_execute_api_endpoint=True), "needs domain_name"),
        (lambda: document_progress(**ELSEWHERE, documents_domain_name="live.example.com"), "shares its name with none"),
        (
            lambda: DocumentsApiArgs(
                api_throttle_rate=1,
                api_throttle_burst=1,
                detailed_metrics_enabled=True,
                log_retention_days=1,
                physical_name="documents",
                disable_execute_api_endpoint=True,
            ),
            "needs documents_domain_name too",
        ),
    ],
    ids=["no certificate", "no address", "one name for two", "no address of documents"],
)
def test_a_name_that_could_not_work_is_refused(declare: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run(declare)
