"""Live progress of document processing: browsers connect to `api`, workers report through it and `table`."""

import math

import pulumi

from infra.connect_authorization import ConnectAuthorization, IamAuthorization
from infra.document_pipeline import DocumentPipeline, DocumentPipelineArgs
from infra.document_uploads import DocumentUploads, DocumentUploadsArgs, JwtAuthorization
from infra.lambda_function import FunctionSettings, LambdaFunction, LambdaFunctionArgs
from infra.progress_table import ProgressTable, ProgressTableArgs
from infra.publishing import Publishing
from infra.stack_config import StackConfig
from infra.stall_watchdog import StallWatchdog, StallWatchdogArgs
from infra.stream_fan_out import StreamFanOut, StreamFanOutArgs
from infra.token_authorizer import TokenAuthorizer, TokenAuthorizerArgs
from infra.user_pool import UserPool, UserPoolArgs
from infra.websocket_api import WebSocketApi, WebSocketApiArgs

config = StackConfig.load()
functions = FunctionSettings(
    memory_megabytes=config.lambda_memory_megabytes,
    log_retention_days=config.log_retention_days,
    packaging=config.lambda_packaging,
)

kms_key_arn = config.kms_key_arn or None

table = ProgressTable(
    "progress",
    ProgressTableArgs(
        with_stream=config.fan_out == "stream", kms_key_arn=kms_key_arn, deletion_protection=config.protected
    ),
)

api = WebSocketApi(
    "api",
    WebSocketApiArgs(
        # A stack may be named with dots, a stage may not.
        stage_name=pulumi.get_stack().replace(".", "-"),
        throttle_rate=config.api_throttle_rate,
        throttle_burst=config.api_throttle_burst,
        logging_level=config.logging_level,
        data_trace_enabled=config.data_trace_enabled,
        detailed_metrics_enabled=config.detailed_metrics_enabled,
        integration_timeout_milliseconds=config.integration_timeout_milliseconds,
        log_retention_days=config.log_retention_days,
        manage_account_logging=config.manage_account_logging,
    ),
)

connection_handler = LambdaFunction(
    "connection-handler",
    LambdaFunctionArgs(
        handler_module="connection_handler",
        environment={
            "TABLE_NAME": table.table_name,
            "CONNECTION_MAX_AGE_SECONDS": str(config.connection_max_age_seconds),
            "ALLOWED_ORIGINS": "" if "*" in config.allowed_origins else " ".join(config.allowed_origins),
        },
        # Once API Gateway has given up, nobody hears the answer.
        timeout_seconds=math.ceil(config.integration_timeout_milliseconds / 1000),
        settings=functions,
    ),
)
table.grant_connections(connection_handler)

authorization: ConnectAuthorization | None = None
issuer: pulumi.Input[str] = config.jwt_issuer
audience: pulumi.Input[str] = config.jwt_audience
if config.create_user_pool:
    users = UserPool(
        "users",
        UserPoolArgs(
            callback_urls=config.user_pool_callback_urls,
            domain_prefix=config.user_pool_domain_prefix,
            self_sign_up=False,
            deletion_protection=config.protected,
        ),
    )
    issuer, audience = users.issuer, users.client_id
    pulumi.export("userPoolId", users.pool_id)
    pulumi.export("userPoolClientId", users.client_id)
    pulumi.export("userPoolDomainUrl", users.domain_url)
if config.authorization == "AWS_IAM":
    authorization = IamAuthorization()
elif config.authorization == "JWT":
    authorization = TokenAuthorizer(
        "token-authorizer",
        TokenAuthorizerArgs(
            issuer=issuer, audience=audience, token_source=config.jwt_token_source, functions=functions
        ),
    ).authorization

api.configure_routes(connection_handler, authorization=authorization)
api.deploy()

publishing = Publishing(
    table=table,
    api=api,
    fan_out=config.fan_out,
    close_expired=config.closes_connections_early,
    max_messages_per_second=config.max_messages_per_second,
    document_retention_hours=config.document_retention_hours,
)
StallWatchdog(
    "stall-watchdog",
    StallWatchdogArgs(stall_timeout_seconds=config.stall_timeout_seconds, publishing=publishing, functions=functions),
)
if config.fan_out == "stream":
    StreamFanOut("stream-fan-out", StreamFanOutArgs(publishing=publishing, functions=functions))

pulumi.export("websocketUrl", api.url)
pulumi.export("callbackUrl", api.callback_url)
pulumi.export("apiId", api.api_id)
pulumi.export("stageName", api.stage_name)
pulumi.export("tableName", table.table_name)
pulumi.export("connectionHandlerName", connection_handler.function_name)

if config.document_pipeline:
    pipeline = DocumentPipeline(
        "documents",
        DocumentPipelineArgs(
            publishing=publishing,
            functions=functions,
            kms_key_arn=kms_key_arn,
            force_destroy=not config.is_production,
        ),
    )
    pulumi.export("documentsBucket", pipeline.bucket_name)
    pulumi.export("documentProcessorName", pipeline.processor.function_name)

    if config.document_uploads:
        uploads = DocumentUploads(
            "uploads",
            DocumentUploadsArgs(
                bucket=pipeline.bucket,
                table=table,
                functions=functions,
                authorization=(
                    JwtAuthorization(issuer=issuer, audience=audience)
                    if config.authorization == "JWT"
                    else config.authorization
                ),
                allowed_origins=config.allowed_origins,
                throttle_rate=config.api_throttle_rate,
                throttle_burst=config.api_throttle_burst,
                detailed_metrics_enabled=config.detailed_metrics_enabled,
                kms_key_arn=kms_key_arn,
            ),
        )
        pulumi.export("uploadUrl", uploads.url)
