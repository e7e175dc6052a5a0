"""API Gateway: WebSocket and HTTP APIs. Their URLs are by path, as `*.localhost` resolves in browsers only."""

from .creation import REGION, Created, Creation, Creator, arn, pascal, record

_ROUTE_SETTINGS = pascal(
    "dataTraceEnabled detailedMetricsEnabled loggingLevel throttlingBurstLimit throttlingRateLimit"
)


def _api_arn(path: str) -> str:
    return f"arn:aws:apigateway:{REGION}::{path}"


def _is_websocket(creation: Creation, api_id: str) -> bool:
    return bool(creation.aws["apigatewayv2"].get_api(ApiId=api_id)["ProtocolType"] == "WEBSOCKET")


def _url(creation: Creation, api_id: str, *, websocket: bool) -> str:
    return creation.endpoint("ws" if websocket else "http", f"/_aws/execute-api/{api_id}")


def api(creation: Creation) -> Created:
    name = creation.physical_name()
    request = creation.request(
        pascal(
            "name protocolType routeSelectionExpression apiKeySelectionExpression description version tags "
            "disableExecuteApiEndpoint ipAddressType routeKey target credentialsArn"
        )
        | {
            "corsConfiguration": (
                "CorsConfiguration",
                record(pascal("allowCredentials allowHeaders allowMethods allowOrigins exposeHeaders maxAge")),
            )
        }
    )
    api_id = creation.aws["apigatewayv2"].create_api(**{**request, "Name": name})["ApiId"]
    return creation.created(
        api_id,
        name=name,
        arn=_api_arn(f"/apis/{api_id}"),
        executionArn=arn("execute-api", api_id),
        apiEndpoint=_url(creation, api_id, websocket=creation.inputs["protocolType"] == "WEBSOCKET"),
    )


def integration(creation: Creation) -> Created:
    request = creation.request(
        pascal(
            "apiId connectionId connectionType contentHandlingStrategy credentialsArn description integrationMethod "
            "integrationSubtype integrationType integrationUri passthroughBehavior payloadFormatVersion "
            "requestParameters requestTemplates templateSelectionExpression"
        )
        | {
            "timeoutMilliseconds": "TimeoutInMillis",
            "tlsConfig": ("TlsConfig", record(pascal("serverNameToVerify"))),
        }
    )
    answer = creation.aws["apigatewayv2"].create_integration(**request)
    return creation.created(
        answer["IntegrationId"],
        integrationResponseSelectionExpression=answer.get("IntegrationResponseSelectionExpression"),
    )


def integration_response(creation: Creation) -> Created:
    request = creation.request(
        pascal(
            "apiId contentHandlingStrategy integrationId integrationResponseKey responseTemplates "
            "templateSelectionExpression"
        )
    )
    answer = creation.aws["apigatewayv2"].create_integration_response(**request)
    return creation.created(answer["IntegrationResponseId"])


def route(creation: Creation) -> Created:
    request = creation.request(
        pascal(
            "apiId apiKeyRequired authorizationScopes authorizationType authorizerId modelSelectionExpression "
            "operationName requestModels routeKey routeResponseSelectionExpression target"
        )
    )
    return creation.created(creation.aws["apigatewayv2"].create_route(**request)["RouteId"])


def route_response(creation: Creation) -> Created:
    request = creation.request(pascal("apiId modelSelectionExpression responseModels routeId routeResponseKey"))
    return creation.created(creation.aws["apigatewayv2"].create_route_response(**request)["RouteResponseId"])


def deployment(creation: Creation) -> Created:
    request = creation.request(
        pascal("apiId description"),
        ignored={"triggers": "they only tell the provider when to replace a deployment"},
    )
    answer = creation.aws["apigatewayv2"].create_deployment(**request)
    return creation.created(answer["DeploymentId"], autoDeployed=False)


def stage(creation: Creation) -> Created:
    name = creation.physical_name()
    request = creation.request(
        pascal("apiId autoDeploy clientCertificateId deploymentId description stageVariables tags")
        | {
            "name": "StageName",
            "accessLogSettings": ("AccessLogSettings", record(pascal("destinationArn format"))),
            "defaultRouteSettings": ("DefaultRouteSettings", record(_ROUTE_SETTINGS)),
            "routeSettings": (
                "RouteSettings",
                lambda settings: {
                    each["routeKey"]: record(_ROUTE_SETTINGS)({k: v for k, v in each.items() if k != "routeKey"})
                    for each in settings
                },
            ),
        }
    )
    creation.aws["apigatewayv2"].create_stage(**{**request, "StageName": name})
    api_id = creation.inputs["apiId"]
    url = _url(creation, api_id, websocket=_is_websocket(creation, api_id))
    return creation.created(
        name,
        name=name,
        arn=_api_arn(f"/apis/{api_id}/stages/{name}"),
        executionArn=arn("execute-api", f"{api_id}/{name}"),
        invokeUrl=f"{url}/{name}",
    )


def authorizer(creation: Creation) -> Created:
    name = creation.physical_name()
    request = creation.request(
        pascal(
            "apiId authorizerCredentialsArn authorizerPayloadFormatVersion authorizerResultTtlInSeconds authorizerType "
            "authorizerUri enableSimpleResponses name"
        )
        | {
            "identitySources": "IdentitySource",
            "jwtConfiguration": ("JwtConfiguration", record({"audiences": "Audience", "issuer": "Issuer"})),
        }
    )
    answer = creation.aws["apigatewayv2"].create_authorizer(**{**request, "Name": name})
    return creation.created(answer["AuthorizerId"], name=name)


def account(creation: Creation) -> Created:
    request = creation.request({"cloudwatchRoleArn": "value"})
    creation.aws["apigateway"].update_account(
        patchOperations=[{"op": "replace", "path": "/cloudwatchRoleArn", **request}] if request else []
    )
    return creation.created("api-gateway-account", apiKeyVersion="4", features=["UsagePlans"])


CREATORS: dict[str, Creator] = {
    "aws:apigatewayv2/api:Api": api,
    "aws:apigatewayv2/integration:Integration": integration,
    "aws:apigatewayv2/integrationResponse:IntegrationResponse": integration_response,
    "aws:apigatewayv2/route:Route": route,
    "aws:apigatewayv2/routeResponse:RouteResponse": route_response,
    "aws:apigatewayv2/deployment:Deployment": deployment,
    "aws:apigatewayv2/stage:Stage": stage,
    "aws:apigatewayv2/authorizer:Authorizer": authorizer,
    "aws:apigateway/account:Account": account,
}
