"""Lambda functions, their permissions and their event sources."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi

from local.creators.creation import REGION, Creation, CreationError, Kind


def _zip(code: Any) -> dict[str, bytes]:
    if not isinstance(code, pulumi.FileArchive):
        raise CreationError(f"is a {type(code).__name__}; the local stack takes a FileArchive of a zip or a folder")
    path = Path(code.path)
    if path.is_file():
        return {"ZipFile": path.read_bytes()}
    if not path.is_dir():
        raise CreationError(f"{path} does not exist")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(path.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(path))
    return {"ZipFile": buffer.getvalue()}


def _function(creation: Creation, name: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    reserved = creation.inputs.get("reservedConcurrentExecutions", -1)
    if reserved != -1:  # the provider's word for "no reservation"
        creation.aws["lambda"].put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=reserved)
    arn = answer["FunctionArn"]
    qualified_arn = f"{arn}:{answer['Version']}"
    return {
        "arn": arn,
        "qualifiedArn": qualified_arn,
        "invokeArn": _invoke_arn(arn),
        "qualifiedInvokeArn": _invoke_arn(qualified_arn),
        "sourceCodeSize": answer["CodeSize"],
    }


def _alias(creation: Creation, _name: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    function, version = creation.inputs["functionName"], creation.inputs["functionVersion"]
    if version != "$LATEST":  # its snapshot is taken meanwhile, and AWS refuses calls until it is there
        creation.aws["lambda"].get_waiter("published_version_active").wait(
            FunctionName=function, Qualifier=version, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
        )
    return {"invokeArn": _invoke_arn(answer["AliasArn"])}


def _invoke_arn(function_arn: str) -> str:
    return f"arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions/{function_arn}/invocations"


KINDS = {
    "aws:lambda/function:Function": Kind(
        "lambda.CreateFunction",
        "{name}",
        name="FunctionName",
        fields={"code": ("Code", _zip)},
        handled="reservedConcurrentExecutions",
        then=_function,
    ),
    "aws:lambda/alias:Alias": Kind(
        "lambda.CreateAlias", "{functionName}/{name}", name="Name", outputs={"arn": "{AliasArn}"}, then=_alias
    ),
    "aws:lambda/provisionedConcurrencyConfig:ProvisionedConcurrencyConfig": Kind(
        "lambda.PutProvisionedConcurrencyConfig", "{functionName},{qualifier}"
    ),
    "aws:lambda/permission:Permission": Kind(
        "lambda.AddPermission",
        "{name}",
        name="StatementId",
        name_key="statementId",
        fields={"function": "FunctionName"},
    ),
    "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig": Kind(
        "lambda.PutFunctionEventInvokeConfig", "{functionName}"
    ),
    "aws:lambda/eventSourceMapping:EventSourceMapping": Kind(
        "lambda.CreateEventSourceMapping",
        "{UUID}",
        fields={"destinationConfig.onFailure.destinationArn": "Destination"},
        outputs={"uuid": "{UUID}"},
    ),
}
