"""The command: which stack, whether it may be loaded, how fast, and what is printed."""

import argparse
import asyncio
import contextlib
import json
import resource
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from local.doctor.command import NoOutputs, outputs_of, patient_of
from local.doctor.document import library
from local.doctor.finding import Patient
from local.doctor.legs import authorization_of, dialling, principal_of
from local.emulator import CREDENTIALS
from local.stack import local_stack

from .report import Load, dollars, lines, report
from .watchers import Watcher, watch_all

# Of the 500 new connections a second that an account has in a region, for all of its APIs.
_MOST_PER_SECOND = 100.0
# A connection asks for $connect and progress, and the other half of each route's throttle is for the stack's own pages.
_SHARE_OF_THROTTLE = 0.5
_FILES_BESIDE_SOCKETS = 128


def load(options: argparse.Namespace) -> int:
    """0: everyone heard the end. 1: somebody could not watch, or did not hear it. 2: nothing was loaded."""
    try:
        with _outputs(options) as outputs:
            patient = patient_of(outputs, token=options.token)
            found = run(patient, options.watchers, options.updates, yes=options.yes, quiet=options.json)
    except NoOutputs as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (BotoCoreError, ClientError, library().StoreUnavailable) as error:
        print(f"error: AWS could not be asked: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(json.dumps(found) if options.json else "\n".join(lines(found)))
    return int(found["watching"] < found["watchers"] or found["endsLost"] > 0)


@contextlib.contextmanager
def _outputs(options: argparse.Namespace) -> Iterator[Any]:
    if options.stack or options.outputs:
        yield outputs_of(options)
        return
    with local_stack() as stack:
        yield {
            **stack.outputs,
            "awsEndpointUrl": stack.emulator.endpoint_url,
            "awsAccessKeyId": CREDENTIALS["AWS_ACCESS_KEY_ID"],
            "awsSecretAccessKey": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        }


def run(patient: Patient, count: int, updates: int, *, yes: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Loads a stack, and gives the report. Raises NoOutputs where it must not or cannot be loaded."""
    worker = patient.outputs.get("workerEnvironment", {})
    per_second = float(worker.get("MAX_MESSAGES_PER_SECOND", 4))
    _require_leave(patient, count, updates, per_second, yes)
    _allow_files(count + _FILES_BESIDE_SOCKETS)
    authorization = authorization_of(patient)
    if authorization == "CUSTOM" and not patient.token:
        raise NoOutputs("the stack takes tokens: give one with --token")
    document_id = f"load-{secrets.token_hex(8)}"
    publisher = library().connect(
        table_name=patient.outputs["tableName"],
        callback_url=worker.get("CALLBACK_URL", "") if worker else patient.outputs["callbackUrl"],
        region=patient.region,
        max_messages_per_second=int(per_second),
        session=patient.client("session"),
    )
    owner = None if authorization == "NONE" else principal_of(patient, authorization)
    if owner == "":
        raise NoOutputs("--token names nobody: it has no sub")
    if owner is not None:  # else the document is nobody's to watch
        publisher.states.expect(document_id, owner=owner)
    stage_rate, rate = _rates(patient)
    watchers = [Watcher() for _ in range(count)]
    took = [0.0]
    stopped = threading.Event()
    with _bars(count, updates, quiet) as (connected, updated):

        def work() -> None:
            begun_at = time.monotonic()

            def wait_until(step: float) -> None:
                # No faster than the stack tells, so that each update is one message and its time is its own.
                if stopped.wait(max(0.0, begun_at + step * 1.1 / per_second - time.monotonic())):
                    raise InterruptedError("the load was stopped")

            with publisher.track(document_id, owner=owner) as tracker:
                tracker.start(total=updates)
                for number in range(updates):
                    wait_until(number + 1)
                    tracker.advance(message=str(time.monotonic()))
                    updated()
                wait_until(updates + 1)
                tracker.complete(result={"at": time.monotonic()})
            took[0] = time.monotonic() - begun_at

        async def watch() -> None:
            dial = dialling(patient, authorization)
            try:
                await watch_all(watchers, dial, document_id, per_second=rate, connected=connected, work=work)
            finally:
                stopped.set()  # else asyncio would wait for the thread's whole document

        try:
            asyncio.run(watch())
        finally:
            key = {"pk": {"S": f"DOCUMENT#{document_id}"}, "sk": {"S": "STATE"}}
            patient.client("dynamodb").delete_item(TableName=patient.outputs["tableName"], Key=key)
    posts = publisher.announcer.take_totals().report if publisher.announcer else None
    done = Load(
        emulated=patient.emulated,
        updates=updates,
        seconds=took[0],
        messages_per_second=per_second,
        rate=stage_rate,
        throttled=posts.throttled if posts else None,
        failed=posts.failed + posts.untried + posts.refused if posts else None,
    )
    return report(done, watchers)


def _require_leave(patient: Patient, count: int, updates: int, per_second: float, yes: bool) -> None:
    """A stack that plans refuse to delete is in use."""
    table = patient.client("dynamodb").describe_table(TableName=patient.outputs["tableName"])["Table"]
    if table.get("DeletionProtectionEnabled") and not yes:
        cost = dollars(count, updates, updates * 1.1 / per_second, per_second)
        raise NoOutputs(
            f"this stack is protected, so it is in use: {count:,} connections and {count * (updates + 2):,} messages,"
            f" some {cost:.2f} dollars, would come out of its throttle and the account's quota. --yes means it"
        )


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise NoOutputs(f"so many connections need {wanted} open files, and this shell allows {hard}: ulimit -Hn")
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _rates(patient: Patient) -> tuple[float, float]:
    """Of the stage in requests a second, and of the ramp in connections a second."""
    stage = patient.client("apigatewayv2").get_stage(
        ApiId=patient.outputs["apiId"], StageName=patient.outputs["stageName"]
    )
    settings = [stage.get("DefaultRouteSettings", {}), *stage.get("RouteSettings", {}).values()]
    limits = [float(each["ThrottlingRateLimit"]) for each in settings if "ThrottlingRateLimit" in each]
    if not limits or min(limits) <= 0:
        raise NoOutputs("the stage is throttled to 0: make doctor, then pulumi up --refresh")
    return max(limits), min(_MOST_PER_SECOND, min(limits) * _SHARE_OF_THROTTLE)


@contextlib.contextmanager
def _bars(count: int, updates: int, quiet: bool) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        connecting = progress.add_task("watching", total=count)
        working = progress.add_task("updates ", total=updates)
        yield lambda: progress.advance(connecting), lambda: progress.advance(working)
