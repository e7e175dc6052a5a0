"""The command: where the outputs come from, the clients, what is printed, the exit code."""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from .document import document, end, retry
from .finding import Check, Finding, Patient, Status, looked_at
from .legs import legs
from .settings import SETTINGS

_ACCESS = ("awsEndpointUrl", "awsAccessKeyId", "awsSecretAccessKey")
_NEEDED = ("websocketUrl", "callbackUrl", "apiId", "stageName", "tableName")


class _Session(boto3.Session):
    """A session whose every client, the library's too, asks the emulator, if there is one."""

    def __init__(self, endpoint_url: str | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._endpoint_url = endpoint_url

    def client(self, *names: Any, **arguments: Any) -> Any:
        return super().client(*names, **{"endpoint_url": self._endpoint_url, **arguments})


class NoOutputs(Exception):
    """There is nothing to look at. The message is meant for people."""


def doctor(options: argparse.Namespace) -> int:
    """0: no fault. 1: a fault. 2: there was nothing to look at."""
    try:
        if (options.end or options.retry) and options.document is None:
            raise NoOutputs("--end and --retry act on a document: name it with --document")
        patient = patient_of(outputs_of(options), token=options.token)
    except NoOutputs as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    findings = []
    for finding in examine(patient, options.document, end_it=options.end, retry_it=options.retry):
        findings.append(finding)
        if not options.json:
            print(_line(finding), flush=True)
    if options.json:
        print(json.dumps([vars(finding) for finding in findings]))
    return int(any(finding.status is Status.FAULT for finding in findings))


def examine(
    patient: Patient, document_id: str | None = None, *, end_it: bool = False, retry_it: bool = False
) -> Iterator[Finding]:
    checks: dict[str, Check] = {**SETTINGS, "connection": legs}
    if document_id is not None:
        checks = {"document": document(document_id)}
        checks |= {"end": end(document_id)} if end_it else {}
        checks |= {"retry": retry(document_id)} if retry_it else {}
    for name, check in checks.items():
        yield from looked_at(name, check, patient)


def patient_of(outputs: Mapping[str, Any], *, token: str = "") -> Patient:
    """Raises NoOutputs."""
    if missing := [key for key in _NEEDED if not outputs.get(key)]:
        raise NoOutputs(f"these are no outputs of docprogress: {', '.join(missing)} is missing")
    if wrong := [key for key in (*_NEEDED, *_ACCESS) if not isinstance(outputs.get(key, ""), str)]:
        raise NoOutputs(f"these are no outputs of docprogress: {', '.join(wrong)} is no text")
    for key in ("functionNames", "workerEnvironment"):
        if not isinstance(outputs.get(key, {}), dict):
            raise NoOutputs(f"these are no outputs of docprogress: {key} is no object")
    endpoint_url = outputs.get("awsEndpointUrl")
    try:
        host = urlsplit(outputs["callbackUrl"]).hostname or ""
    except ValueError as error:
        raise NoOutputs(f"callbackUrl is {outputs['callbackUrl']!r}: {error}") from None
    # A domain name of one's own tells no region; what a worker may use is in the same one.
    named = re.search(r"\.execute-api\.([a-z0-9-]+)\.", host) or re.search(
        r"arn:[a-z-]+:dynamodb:([a-z0-9-]+):", str(outputs.get("workerPolicy"))
    )
    region = named[1] if named else os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    session: Any = _Session(
        endpoint_url,
        # The local stack's are those of one run, and in its outputs; AWS's are wherever boto3 looks.
        aws_access_key_id=outputs.get("awsAccessKeyId"),
        aws_secret_access_key=outputs.get("awsSecretAccessKey"),
        region_name=region,
    )
    clients: dict[str, Any] = {"session": session}

    def client(service: str) -> Any:
        if service not in clients:
            # The callback URL is a path of the emulator's endpoint, and on AWS a host of its own.
            there = {"endpoint_url": outputs["callbackUrl"]} if service == "apigatewaymanagementapi" else {}
            clients[service] = session.client(
                service,
                **there,
                config=Config(
                    connect_timeout=5,
                    read_timeout=30,
                    retries={"mode": "standard", "total_max_attempts": 2},
                    s3={"addressing_style": "path"} if endpoint_url else None,
                ),
            )
        return clients[service]

    return Patient(
        outputs=outputs,
        client=client,
        region=region,
        emulated=endpoint_url is not None,
        token=token,
        credentials=session.get_credentials(),
    )


def outputs_of(options: argparse.Namespace) -> Mapping[str, Any]:
    """Of `--outputs` or `--stack`. Raises NoOutputs."""
    if options.outputs:
        text = sys.stdin.read() if str(options.outputs) == "-" else _read(options.outputs)
    else:
        text = _of_stack(options.stack)
    try:
        outputs = json.loads(text)
    except ValueError as error:
        raise NoOutputs(f"the outputs are no JSON: {error}") from None
    if not isinstance(outputs, dict):
        raise NoOutputs("the outputs are no JSON object")
    return outputs


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise NoOutputs(f"cannot read {path}: {error}") from None


def _of_stack(stack: str) -> str:
    try:
        command = ["pulumi", "stack", "output", "--json", "--show-secrets", "--stack", stack]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        raise NoOutputs("the Pulumi CLI is not there; give --outputs FILE, the line that `make up` prints") from None
    except subprocess.CalledProcessError as error:
        raise NoOutputs(f"pulumi knows no outputs of stack {stack}: {error.stderr.strip()}") from None


def _line(finding: Finding) -> str:
    cure = f"\n{'':10}-> {finding.cure}" if finding.cure else ""
    return f"{finding.status:8}  {finding.check}: {finding.detail}{cure}"
