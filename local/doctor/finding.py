"""What a check finds, and what it is given to look at."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError")


class Status(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """cure: what to do, or to look at; empty where nothing has to be done."""

    check: str
    status: Status
    detail: str
    cure: str = ""


def ok(check: str, detail: str) -> Finding:
    return Finding(check, Status.OK, detail)


def warning(check: str, detail: str, cure: str) -> Finding:
    return Finding(check, Status.WARNING, detail, cure)


def fault(check: str, detail: str, cure: str) -> Finding:
    return Finding(check, Status.FAULT, detail, cure)


@dataclass(frozen=True)
class Patient:
    """A stack to look at.

    Attributes:
        outputs: The stack's outputs.
        client: The boto3 client of a service.
        emulated: It is the local stack, which writes no access logs.
        token: What a page would connect with, on a stack that takes tokens.
        credentials: Who asks; for signed URLs.
        now: Epoch seconds.
    """

    outputs: Mapping[str, Any]
    client: Callable[[str], Any]
    region: str
    emulated: bool = False
    token: str = ""
    credentials: Any = None
    now: Callable[[], float] = time.time

    @property
    def functions(self) -> Mapping[str, str]:
        """The physical name of each function, by what it is for."""
        known = {"connection-handler": "connectionHandlerName", "documents-processor": "documentProcessorName"}
        named = {name: self.outputs[key] for name, key in known.items() if key in self.outputs}
        return {**named, **self.outputs.get("functionNames", {})}


Check = Callable[[Patient], Iterator[Finding]]


def looked_at(name: str, check: Check, patient: Patient) -> Iterator[Finding]:
    """What a check finds; AWS's refusal to let it look is a finding too."""
    try:
        yield from check(patient)
    except ClientError as error:
        code, operation = error.response["Error"]["Code"], error.operation_name
        if code in _DENIED:
            yield warning(name, f"not looked at: {operation} is not allowed", f"let your role call {operation}")
        else:
            yield fault(name, f"{operation} failed: {error}", "mend what AWS says, then run the doctor again")
    except BotoCoreError as error:
        yield fault(name, f"AWS could not be asked: {error}", "set AWS credentials and a region, or give --outputs")
    except Exception as error:  # noqa: BLE001  told as a fault: what one check meets must not hide the others
        yield fault(name, f"could not be looked at: {type(error).__name__}: {error}", "mend it, then run it again")
