"""Lambda functions, their permissions and their event sources."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pulumi

from .creation import REGION, Created, Creation, CreationError, Creator, pascal, record, records, translate

_DESTINATIONS = record(
    {
        "onFailure": ("OnFailure", record({"destination": "Destination", "destinationArn": "Destination"})),
        "onSuccess": ("OnSuccess", record({"destination": "Destination"})),
    }
)


def _zip(code: Any) -> bytes:
    if not isinstance(code, pulumi.FileArchive):
        raise CreationError(f"is a {type(code).__name__}; the local stack takes a FileArchive of a zip or a folder")
    path = Path(code.path)
    if path.is_file():
        return path.read_bytes()
    if not path.is_dir():
        raise CreationError(f"{path} does not exist")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(path.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(path))
    return buffer.getvalue()


def function(creation: Creation) -> Created:
    name = creation.physical_name()
    request = creation.request(
        pascal("architectures codeSigningConfigArn description handler memorySize packageType publish role runtime")
        | pascal("layers tags timeout")
        | {
            "name": "FunctionName",
            "kmsKeyArn": "KMSKeyArn",
            "code": ("Code", lambda code: {"ZipFile": _zip(code)}),
            "deadLetterConfig": ("DeadLetterConfig", record(pascal("targetArn"))),
            "environment": ("Environment", record(pascal("variables"))),
            "ephemeralStorage": ("EphemeralStorage", record(pascal("size"))),
            "loggingConfig": (
                "LoggingConfig",
                record(pascal("applicationLogLevel logFormat logGroup systemLogLevel")),
            ),
            "snapStart": ("SnapStart", record(pascal("applyOn"))),
            "tracingConfig": ("TracingConfig", record(pascal("mode"))),
        },
        handled="reservedConcurrentExecutions",
        ignored={
            "sourceCodeHash": "it only tells the provider when to upload the code again",
            "codeSha256": "it only tells the provider when to upload the code again",
            "skipDestroy": "nothing is destroyed one by one",
        },
    )
    client = creation.aws["lambda"]
    answer = client.create_function(**{**request, "FunctionName": name})
    reserved = creation.inputs.get("reservedConcurrentExecutions", -1)
    if reserved != -1:  # the provider's word for "no reservation"
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=reserved)
    function_arn = answer["FunctionArn"]
    qualified_arn = f"{function_arn}:{answer['Version']}"
    return creation.created(
        name,
        name=name,
        arn=function_arn,
        qualifiedArn=qualified_arn,
        invokeArn=_invoke_arn(function_arn),
        qualifiedInvokeArn=_invoke_arn(qualified_arn),
        lastModified=answer["LastModified"],
        sourceCodeSize=answer["CodeSize"],
        codeSha256=answer["CodeSha256"],
        version=answer["Version"],
    )


def _invoke_arn(function_arn: str) -> str:
    return f"arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions/{function_arn}/invocations"


def permission(creation: Creation) -> Created:
    statement_id = creation.physical_name("statementId", prefix="statementIdPrefix")
    request = creation.request(
        pascal("action eventSourceToken functionUrlAuthType invokedViaFunctionUrl principal qualifier")
        | pascal("sourceAccount sourceArn statementId")
        | {"function": "FunctionName", "principalOrgId": "PrincipalOrgID"},
        handled="statementIdPrefix",
    )
    creation.aws["lambda"].add_permission(**{**request, "StatementId": statement_id})
    return creation.created(statement_id, statementId=statement_id)


def function_event_invoke_config(creation: Creation) -> Created:
    request = creation.request(
        pascal("functionName maximumEventAgeInSeconds maximumRetryAttempts qualifier")
        | {"destinationConfig": ("DestinationConfig", _DESTINATIONS)}
    )
    creation.aws["lambda"].put_function_event_invoke_config(**request)
    return creation.created(":".join(filter(None, (request["FunctionName"], request.get("Qualifier")))))


def event_source_mapping(creation: Creation) -> Created:
    request = creation.request(
        pascal(
            "batchSize bisectBatchOnFunctionError enabled eventSourceArn functionName functionResponseTypes "
            "maximumBatchingWindowInSeconds maximumRecordAgeInSeconds maximumRetryAttempts parallelizationFactor "
            "startingPosition startingPositionTimestamp tags tumblingWindowInSeconds"
        )
        | {
            "kmsKeyArn": "KMSKeyArn",
            "destinationConfig": ("DestinationConfig", _DESTINATIONS),
            "filterCriteria": (
                "FilterCriteria",
                lambda value: translate(value, {"filters": ("Filters", records(pascal("pattern")))}),
            ),
            "metricsConfig": ("MetricsConfig", record(pascal("metrics"))),
            "scalingConfig": ("ScalingConfig", record(pascal("maximumConcurrency"))),
        }
    )
    answer = creation.aws["lambda"].create_event_source_mapping(**request)
    return creation.created(
        answer["UUID"],
        uuid=answer["UUID"],
        arn=answer.get("EventSourceMappingArn"),
        functionArn=answer["FunctionArn"],
        state=answer["State"],
    )


CREATORS: dict[str, Creator] = {
    "aws:lambda/function:Function": function,
    "aws:lambda/permission:Permission": permission,
    "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig": function_event_invoke_config,
    "aws:lambda/eventSourceMapping:EventSourceMapping": event_source_mapping,
}
