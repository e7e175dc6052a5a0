"""`POST /uploads`: an HTTP API whose one route hands out forms to upload a document from a browser."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from .authorization import AuthorizationMode, NoAuthorization
from .keeping import kept
from .lambda_function import FunctionSettings, LambdaFunction, LambdaFunctionArgs
from .policy import allow, use_keys_of
from .progress_table import ProgressTable
from .rules import THROTTLE_BURST, THROTTLE_RATE, list_of
from .urls import ORIGIN, is_every_origin

_ROUTE = "POST /uploads"
# The stage without a path of its own in the URL, which only HTTP APIs have in this sense.
_STAGE = "$default"
# Below API Gateway's 30 seconds, so that the function ends with a line in its log.
_TIMEOUT_SECONDS = 29

# Every value is in quotes: API Gateway writes "-" for a variable that has no value. What a client can choose
# freely, such as its user agent, is left out, as it may have quotes of its own.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html
ACCESS_LOG_FORMAT = json.dumps(
    {
        "requestId": "$context.requestId",
        "requestTime": "$context.requestTime",
        "routeKey": "$context.routeKey",
        "sourceIp": "$context.identity.sourceIp",
        "status": "$context.status",
        "responseLength": "$context.responseLength",
        "integrationStatus": "$context.integration.status",
        "integrationLatency": "$context.integration.latency",
        "authorizerError": "$context.authorizer.error",
        "errorMessage": "$context.error.message",
        "errorResponseType": "$context.error.responseType",
    }
)


@dataclass(frozen=True, kw_only=True)
class DocumentUploadsArgs:
    """
    Attributes:
        bucket: where the documents go; its CORS configuration is set here.
        table: where the owner of an expected document is noted.
        authorization: who may upload: everyone, whoever signs with AWS credentials, or whoever has a token.
        allowed_origins: whose pages may upload, such as `https://app.example.com`. Any by default, and with a `*`.
        api_throttle_rate: steady requests per second; api_throttle_burst: requests at once.
        disposable: the API may be deleted, and its URL with it.
    """

    bucket: aws.s3.Bucket
    table: ProgressTable
    functions: FunctionSettings
    authorization: AuthorizationMode = NoAuthorization()  # noqa: RUF009 - it is frozen and has no fields
    allowed_origins: Sequence[str] = ()
    api_throttle_rate: int
    api_throttle_burst: int
    detailed_metrics_enabled: bool
    disposable: bool = False

    def __post_init__(self) -> None:
        list_of(ORIGIN).check("allowed_origins", self.allowed_origins)
        THROTTLE_RATE.check("api_throttle_rate", self.api_throttle_rate)
        THROTTLE_BURST.check("api_throttle_burst", self.api_throttle_burst)


class DocumentUploads(pulumi.ComponentResource):
    """
    ```python
    uploads = DocumentUploads("uploads", DocumentUploadsArgs(bucket=pipeline.bucket, table=table, ...))
    pulumi.export("uploadUrl", uploads.url)
    ```

    Attributes:
        url: where pages ask for a form: `https://…/uploads`.
        route_arn: what a policy names to let an identity upload with AWS_IAM (`execute-api:Invoke`).
    """

    url: pulumi.Output[str]
    route_arn: pulumi.Output[str]
    presigner: LambdaFunction
    bucket: aws.s3.Bucket

    def __init__(self, name: str, args: DocumentUploadsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:DocumentUploads", name, None, opts)
        self._name = name
        self._args = args
        self.bucket = args.bucket
        self._child = pulumi.ResourceOptions(parent=self)
        self.presigner = LambdaFunction(
            f"{name}-presigner",
            LambdaFunctionArgs(
                handler_module="upload_presigner",
                environment={
                    "AUTHORIZATION": args.authorization.mode,
                    "TABLE_NAME": args.table.table_name,
                    "DOCUMENTS_BUCKET": args.bucket.bucket,
                },
                timeout_seconds=_TIMEOUT_SECONDS,
                settings=args.functions,
            ),
            opts=self._child,
        )
        self._grant_presigner()
        bucket_cors = self._allow_origins_in_bucket()
        self._api = self._create_api()
        self.url = pulumi.Output.concat(self._api.api_endpoint, "/uploads")
        self.route_arn = pulumi.Output.concat(self._api.execution_arn, f"/{_STAGE}/POST/uploads")
        self._create_stage([self._create_route(), self._permit_invocation(), bucket_cors, *self.presigner.grants])
        self.register_outputs({"url": self.url, "route_arn": self.route_arn})

    def _grant_presigner(self) -> None:
        bucket_arn = self._args.bucket.arn
        # A signed form allows what its signer may do.
        self.presigner.grant(
            "put-documents",
            allow(["s3:PutObject"], [pulumi.Output.concat(bucket_arn, "/uploads/*.pdf")]),
            *use_keys_of("s3", self.presigner.arn, "aws:s3:arn", [bucket_arn, pulumi.Output.concat(bucket_arn, "/*")]),
            parent=self,
        )
        # Without principals there are no owners to note.
        if self._args.authorization.knows_callers:
            self._args.table.grant_expect(self.presigner)

    def _allow_origins_in_bucket(self) -> aws.s3.BucketCorsConfiguration:
        return aws.s3.BucketCorsConfiguration(
            f"{self._name}-bucket-cors",
            bucket=self._args.bucket.id,
            # A form needs no header of its own; a page that shows how far an upload is sends a preflight all the same.
            cors_rules=[
                {"allowed_methods": ["POST"], "allowed_origins": self._allowed_origins, "max_age_seconds": 3600}
            ],
            opts=self._child,
        )

    def _create_api(self) -> aws.apigatewayv2.Api:
        return aws.apigatewayv2.Api(
            f"{self._name}-api",
            name=f"{pulumi.get_project()}-{pulumi.get_stack()}-uploads",
            description="Forms to upload documents with",
            protocol_type="HTTP",
            # With this, API Gateway answers preflights itself, before and without any authorization.
            cors_configuration={
                "allow_origins": self._allowed_origins,
                "allow_methods": ["POST"],
                # By name: a * would not stand for Authorization.
                "allow_headers": ["authorization", "content-type", *self._args.authorization.request_headers],
                "max_age": 3600,
            },
            opts=kept(parent=self, disposable=self._args.disposable),
        )

    def _create_route(self) -> aws.apigatewayv2.Route:
        integration = aws.apigatewayv2.Integration(
            f"{self._name}-integration",
            api_id=self._api.id,
            integration_type="AWS_PROXY",
            # Lambda is always invoked by POST, whatever the route.
            integration_method="POST",
            integration_uri=self.presigner.invoke_arn,
            payload_format_version="2.0",
            timeout_milliseconds=_TIMEOUT_SECONDS * 1000,
            opts=self._child,
        )
        return aws.apigatewayv2.Route(
            f"{self._name}-route",
            api_id=self._api.id,
            route_key=_ROUTE,
            target=pulumi.Output.concat("integrations/", integration.id),
            **self._args.authorization.bind_http(self._name, self._api.id, self._child),
            opts=self._child,
        )

    def _permit_invocation(self) -> aws.lambda_.Permission:
        return aws.lambda_.Permission(
            f"{self._name}-invoke-presigner",
            action="lambda:InvokeFunction",
            function=self.presigner.function_name,
            principal="apigateway.amazonaws.com",
            source_arn=self.route_arn,
            opts=self._child,
        )

    def _create_stage(self, before: list[pulumi.Resource]) -> None:
        args = self._args
        access_log_group = aws.cloudwatch.LogGroup(
            f"{self._name}-access-logs",
            # With the API's id, since another owner may have a stack of the same name.
            name=pulumi.Output.concat("/aws/vendedlogs/apigateway/", self._api.name, "/", self._api.id),
            retention_in_days=args.functions.log_retention_days,
            # That of an earlier version keeps its name: a new one would replace it.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["name"]),
        )
        aws.apigatewayv2.Stage(
            f"{self._name}-stage",
            api_id=self._api.id,
            name=_STAGE,
            auto_deploy=True,
            # Both limits, since one that is not set is sent as 0; levels of logging are for WebSocket APIs only.
            default_route_settings={
                "throttling_rate_limit": args.api_throttle_rate,
                "throttling_burst_limit": args.api_throttle_burst,
                "detailed_metrics_enabled": args.detailed_metrics_enabled,
            },
            access_log_settings={"destination_arn": access_log_group.arn, "format": ACCESS_LOG_FORMAT},
            # Whoever comes first finds all of it there.
            opts=pulumi.ResourceOptions.merge(
                kept(parent=self, disposable=args.disposable), pulumi.ResourceOptions(depends_on=before)
            ),
        )

    @property
    def _allowed_origins(self) -> list[str]:
        origins = list(self._args.allowed_origins)
        return ["*"] if is_every_origin(origins) else origins
