"""The engine's own process: runs one Pulumi program against the emulator, then ends.

The program runs under `pulumi.runtime`'s mock monitor, whose resource registrations create each resource for real.
One deployment a process: Pulumi keeps its state in globals. Reads a JSON request from standard input and writes one
JSON report a line to the file descriptor that it names.
"""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import pulumi
from botocore.exceptions import BotoCoreError, ClientError
from pulumi.runtime import mocks, rpc
from pulumi.runtime.settings import configure
from pulumi.runtime.stack import run_in_stack

from local.creators import Clients, Creation, CreationError, create, stand_in
from local.creators.creation import ACCOUNT, REGION
from local.project import Project, ProjectError, read_project

_STACK_TYPE = "pulumi:pulumi:Stack"
_INVOKES: dict[str, dict[str, object]] = {
    "aws:index/getCallerIdentity:getCallerIdentity": {
        "accountId": ACCOUNT,
        "arn": f"arn:aws:iam::{ACCOUNT}:root",
        "id": ACCOUNT,
        "userId": ACCOUNT,
    },
    "aws:index/getRegion:getRegion": {
        "id": REGION,
        "name": REGION,
        "region": REGION,
        "description": "US East (N. Virginia)",
        "endpoint": f"ec2.{REGION}.amazonaws.com",
    },
    "aws:index/getPartition:getPartition": {
        "id": "aws",
        "partition": "aws",
        "dnsSuffix": "amazonaws.com",
        "reverseDnsPrefix": "com.amazonaws",
    },
}
# What is there before the stack; a Pulumi program looks for it with `get`.
_READ: dict[str, dict[str, object]] = {
    # The emulator writes no logs of API Gateway, so it needs no role for them.
    "aws:apigateway/account:Account": {"cloudwatchRoleArn": f"arn:aws:iam::{ACCOUNT}:role/api-gateway-logs"},
}


class Reports:
    """Tells the parent what happens. The first failure is the only one told, and ends the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def write(self, **report: object) -> None:
        with self._lock:
            self._send(report)

    def fail(self, message: str) -> NoReturn:
        # One failed resource fails everything that waits for it, with a trace each. None of that says more, so the
        # process ends here; the lock is kept, for no other thread may report after this.
        self._lock.acquire()
        self._send({"error": message})
        sys.stderr.flush()
        os._exit(1)

    def _send(self, report: Mapping[str, object]) -> None:
        line = json.dumps(report).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except BrokenPipeError:
            os._exit(1)  # the parent has gone; nobody wants the rest


class EmulatorProvider(mocks.Mocks):
    """Creates each declared resource on the emulator."""

    def __init__(self, aws: Clients, reports: Reports) -> None:
        self._aws = aws
        self._reports = reports

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        inputs = plain(args.inputs)
        if args.custom is False:
            return None, inputs
        creation = Creation(args.typ, args.name, inputs, self._aws)
        if args.resource_id and args.typ in _READ:
            return args.resource_id, {**args.inputs, **_READ[args.typ]}
        if args.resource_id:
            _say(
                f"{args.name} ({args.typ}) is read, and the local stack starts empty: a stand-in has its id and its arn"
            )
            return args.resource_id, {**stand_in(creation).outputs, **args.inputs}
        started = time.monotonic()
        self._reports.write(creating=args.typ, name=args.name)
        try:
            created = create(creation)
        except CreationError as error:
            self._fail(args, str(error))
        except ClientError as error:
            response = error.response["Error"]
            self._fail(args, f"{error.operation_name} answered {response.get('Code')}: {response.get('Message')}")
        except BotoCoreError as error:
            self._fail(args, str(error))
        except Exception:  # noqa: BLE001 - reported, and then the process ends
            self._fail(args, f"its creator failed:\n{traceback.format_exc()}")
        if created is None:
            _say(f"{args.name} ({args.typ}) is not on the local stack: a stand-in has its id, its arn and its inputs")
            created = stand_in(creation)
        self._reports.write(created=args.typ, name=args.name, seconds=round(time.monotonic() - started, 3))
        return created.id, {**args.inputs, **created.outputs}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        inputs = plain(args.args)
        if args.token.endswith(":getPolicyDocument"):
            return {"id": "policy", "json": json.dumps(policy_document(inputs)), **args.args}, []
        if args.token not in _INVOKES:
            _say(f"{args.token} is not answered by the local stack: what was asked for stands for it")
            name = next((str(value) for value in inputs.values() if isinstance(value, str)), "stand-in")
            return {
                **stand_in(Creation(args.token, name, {"name": name}, self._aws)).outputs,
                "id": name,
                **args.args,
            }, []
        return _INVOKES[args.token], []

    def _fail(self, args: mocks.MockResourceArgs, message: str) -> NoReturn:
        self._reports.fail(f"{args.name} ({args.typ}): {message}")


def _say(line: str) -> None:
    print(f"note: {line}", flush=True)


def policy_document(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What `aws.iam.get_policy_document` makes of its statements; other documents to merge are not taken."""

    def statement(given: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {"Effect": given.get("effect", "Allow")}
        for key, name in (
            ("sid", "Sid"),
            ("actions", "Action"),
            ("notActions", "NotAction"),
            ("resources", "Resource"),
        ):
            if key in given:
                made[name] = given[key]
        for each in given.get("principals", []):
            everyone = each["type"] == "*"
            made["Principal"] = "*" if everyone else made.get("Principal", {}) | {each["type"]: each["identifiers"]}
        for each in given.get("conditions", []):
            made.setdefault("Condition", {}).setdefault(each["test"], {})[each["variable"]] = each["values"]
        return made

    return {"Version": inputs.get("version", "2012-10-17"), "Statement": [statement(e) for e in inputs["statements"]]}


class Monitor(mocks.MockMonitor):
    """The mock monitor, keeping the stack's outputs."""

    outputs: dict[str, Any] | None = None

    def RegisterResourceOutputs(self, request: Any) -> Any:
        if f"::{_STACK_TYPE}::" in request.urn:
            self.outputs = plain(rpc.deserialize_properties(request.outputs))
        return super().RegisterResourceOutputs(request)  # type: ignore[no-untyped-call]  # pulumi's


def plain(value: Any) -> Any:
    """A wire value as a creator wants it: secrets unwrapped, nothing None, whole numbers as int."""
    if rpc.is_rpc_secret(value):
        return plain(rpc.unwrap_rpc_secret(value))
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # protobuf's Struct knows only doubles
    return value


def run(request: Mapping[str, Any], reports: Reports) -> None:
    """Deploys the program that `request` names and reports its outputs, or why there are none."""
    directory = Path(request["project_dir"])
    try:
        project = read_project(directory, request["stack"], request["config"])
    except ProjectError as error:
        reports.fail(str(error))
    directory = project.program
    os.chdir(directory)
    sys.path.insert(0, str(directory))
    try:
        outputs = asyncio.run(_deploy(project, directory, request, reports))
    except (pulumi.RunError, pulumi.ConfigMissingError, pulumi.ConfigTypeError) as error:
        reports.fail(str(error))
    except SystemExit as error:
        reports.fail(f"the program ended itself with sys.exit({error.code!r})")
    except Exception as error:  # noqa: BLE001 - reported, and then the process ends
        reports.fail(_explain(error, directory))
    reports.write(outputs=outputs)


async def _deploy(project: Project, directory: Path, request: Mapping[str, Any], reports: Reports) -> dict[str, Any]:
    monitor = Monitor(EmulatorProvider(Clients(request["endpoint_url"], request["credentials"]), reports))
    pulumi.runtime.set_all_config(dict(project.config), project.secret_keys)
    _configure(monitor, project.name, request["stack"], directory)
    # A task whose failure nobody awaits is a failure all the same; by default it would only be printed.
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: reports.fail(_explain(context.get("exception") or context["message"], directory))
    )
    await run_in_stack(lambda: _execute(directory))
    return monitor.outputs or {}


def _configure(monitor: Monitor, project: str, stack: str, directory: Path) -> None:
    # As set_mocks does, which would also register a stack of its own; run_in_stack makes the real one.
    features = monitor.GetDeploymentInfo(None).supportedFeatures  # type: ignore[no-untyped-call]  # pulumi's
    settings = mocks.MockSettings(  # type: ignore[no-untyped-call]  # pulumi's
        monitor=monitor,
        monitor_features=set(features),
        engine=mocks.MockEngine(None),
        project=project,
        stack=stack,
        root_directory=str(directory),
        organization="organization",
        dry_run=False,
        callbacks=None,
    )
    configure(settings)


def _execute(directory: Path) -> None:
    runpy.run_path(str(directory / "__main__.py"), run_name="__main__")


def _explain(error: BaseException | str, directory: Path) -> str:
    """The program's own frames and the error; the frames of Pulumi's runtime help nobody."""
    if isinstance(error, str):
        return error
    own = Path(__file__).parent
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(directory)
        and "site-packages" not in frame.filename
        and not Path(frame.filename).is_relative_to(own)
    ]
    lines = traceback.format_list(frames) + traceback.format_exception_only(error)
    return "the program failed:\n" + "".join(lines).rstrip()


def main() -> None:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a TextIOWrapper unless replaced
    request = json.load(sys.stdin)
    run(request, Reports(request["report_descriptor"]))


if __name__ == "__main__":
    main()
