"""API Gateway: WebSocket and HTTP APIs, and domain names with their certificates.

URLs are by path, as `*.localhost` resolves in browsers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.creators.creation import Creation, Kind

_API_ARN = "arn:aws:apigateway:{region}::/apis/{ApiId}"
_EXECUTION_ARN = "arn:aws:execute-api:{region}:{account}:{ApiId}"


def _url(creation: Creation, api_id: str, protocol: str) -> str:
    return creation.endpoint("ws" if protocol == "WEBSOCKET" else "http", f"/_aws/execute-api/{api_id}")


def _api(creation: Creation, _name: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"apiEndpoint": _url(creation, answer["ApiId"], creation.inputs["protocolType"])}


def _stage(creation: Creation, name: str, _answer: Mapping[str, Any]) -> Mapping[str, Any]:
    api_id = creation.inputs["apiId"]
    protocol = creation.aws["apigatewayv2"].get_api(ApiId=api_id)["ProtocolType"]
    return {"invokeUrl": f"{_url(creation, api_id, protocol)}/{name}"}


def _domain_name(creation: Creation, _name: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    (made,) = answer["DomainNameConfigurations"]
    where = {"targetDomainName": made["ApiGatewayDomainName"], "hostedZoneId": made["HostedZoneId"]}
    return {"domainNameConfiguration": {**creation.inputs["domainNameConfiguration"], **where}}


def _certificate(creation: Creation, _name: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    certificate = creation.aws["acm"].describe_certificate(CertificateArn=answer["CertificateArn"])["Certificate"]
    return {
        "domainValidationOptions": [
            {
                "domainName": each["DomainName"],
                **{f"resourceRecord{key}": value for key, value in each["ResourceRecord"].items()},
            }
            for each in certificate["DomainValidationOptions"]
        ]
    }


def _by_route(settings: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        each["routeKey"]: {k[0].upper() + k[1:]: v for k, v in each.items() if k != "routeKey"} for each in settings
    }


def _patch(role: str) -> list[dict[str, str]]:
    return [{"op": "replace", "path": "/cloudwatchRoleArn", "value": role}]


KINDS = {
    "aws:apigatewayv2/api:Api": Kind(
        "apigatewayv2.CreateApi",
        "{ApiId}",
        name="Name",
        outputs={"arn": _API_ARN, "executionArn": _EXECUTION_ARN},
        then=_api,
    ),
    "aws:apigatewayv2/integration:Integration": Kind(
        "apigatewayv2.CreateIntegration", "{IntegrationId}", fields={"timeoutMilliseconds": "TimeoutInMillis"}
    ),
    "aws:apigatewayv2/integrationResponse:IntegrationResponse": Kind(
        "apigatewayv2.CreateIntegrationResponse", "{IntegrationResponseId}"
    ),
    "aws:apigatewayv2/route:Route": Kind("apigatewayv2.CreateRoute", "{RouteId}"),
    "aws:apigatewayv2/routeResponse:RouteResponse": Kind("apigatewayv2.CreateRouteResponse", "{RouteResponseId}"),
    "aws:apigatewayv2/deployment:Deployment": Kind("apigatewayv2.CreateDeployment", "{DeploymentId}"),
    "aws:apigatewayv2/stage:Stage": Kind(
        "apigatewayv2.CreateStage",
        "{name}",
        name="StageName",
        fields={"routeSettings": ("RouteSettings", _by_route)},
        outputs={
            "arn": "arn:aws:apigateway:{region}::/apis/{apiId}/stages/{name}",
            "executionArn": "arn:aws:execute-api:{region}:{account}:{apiId}/{name}",
        },
        then=_stage,
    ),
    "aws:apigatewayv2/authorizer:Authorizer": Kind("apigatewayv2.CreateAuthorizer", "{AuthorizerId}", name="Name"),
    "aws:apigatewayv2/domainName:DomainName": Kind("apigatewayv2.CreateDomainName", "{DomainName}", then=_domain_name),
    "aws:apigatewayv2/apiMapping:ApiMapping": Kind("apigatewayv2.CreateApiMapping", "{ApiMappingId}"),
    "aws:acm/certificate:Certificate": Kind(
        "acm.RequestCertificate", "{CertificateArn}", outputs={"arn": "{CertificateArn}"}, then=_certificate
    ),
    # The emulator issues at once; AWS would be asked until it has.
    "aws:acm/certificateValidation:CertificateValidation": Kind(
        "acm.DescribeCertificate", "{CertificateArn}", handled="validationRecordFqdns"
    ),
    "aws:apigateway/account:Account": Kind(
        "apigateway.UpdateAccount",
        "api-gateway-account",
        fields={"cloudwatchRoleArn": ("patchOperations", _patch)},
    ),
}
