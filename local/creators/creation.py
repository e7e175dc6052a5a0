"""What creators are written with: one resource's inputs, strictly translated, and the clients that create it.

AWS's own model of each operation (botocore's) says which parameters there are; a creator writes down only what is
named or shaped differently there. An input without a parameter is an error: were it dropped, the local stack would
differ from AWS without a word.
"""

from __future__ import annotations

import datetime
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore import xform_name
from botocore.config import Config

ACCOUNT = "000000000000"
REGION = "us-east-1"

# They tell the provider how to replace, to wait for and to delete a resource. Nothing is here: all goes at once.
_FOR_THE_PROVIDER = {
    *("codeSha256", "deletionWindowInDays", "forceDestroy", "forceDetachPolicies"),
    *("skipDestroy", "sourceCodeHash", "timeouts", "triggers"),
}
_DEFAULTS = {"eventBusName": "default", "groupName": "default", "region": REGION, "account": ACCOUNT}

# Where an input goes, as a path of parameters ("Policies.PasswordPolicy"), alone or with a conversion of its value.
Field = str | tuple[str, Callable[[Any], Any]]


class CreationError(Exception):
    """A resource that cannot be created as declared. The message is meant for people."""


class Clients:
    """One boto3 client a service, shared by all threads, with the emulator's root credentials.

    Args:
        credentials: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    """

    def __init__(self, endpoint_url: str, credentials: Mapping[str, str]) -> None:
        self.endpoint_url = endpoint_url
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()  # a client may be shared between threads, a session may not
        self._session: Any = boto3.Session(
            credentials["AWS_ACCESS_KEY_ID"], credentials["AWS_SECRET_ACCESS_KEY"], region_name=REGION
        )

    def __getitem__(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._session.client(
                    service,
                    endpoint_url=self.endpoint_url,
                    config=Config(
                        connect_timeout=5,
                        read_timeout=60,
                        max_pool_connections=32,
                        retries={"mode": "standard", "total_max_attempts": 2},
                        s3={"addressing_style": "path"},
                    ),
                )
            return self._clients[service]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


@dataclass(frozen=True)
class Created:
    """What a real provider would return: the resource's id, and its outputs beside the inputs."""

    id: str
    outputs: Mapping[str, Any]


@dataclass(frozen=True)
class Creation:
    """One resource to create.

    Attributes:
        name: The logical name, the first argument in the program.
        inputs: The inputs as they go over the wire: camelCase names, absent instead of None, numbers without a
            fraction as int, secrets unwrapped.
    """

    type: str
    name: str
    inputs: Mapping[str, Any]
    aws: Clients

    def physical_name(self, key: str = "name") -> str:
        """The declared physical name, or one made as Pulumi makes it: the logical name, a dash and 7 hex digits."""
        if key in self.inputs:
            return str(self.inputs[key])
        prefix = self.inputs.get(f"{key}Prefix")
        name = f"{prefix}{secrets.token_hex(13)}" if prefix else f"{self.name}-{secrets.token_hex(4)[:7]}"
        if key == "bucket":
            return name.lower()
        return f"{name}.fifo" if self.inputs.get("fifoQueue") else name

    def endpoint(self, scheme: str, path: str) -> str:
        """A URL on the emulator that works from this machine."""
        return f"{scheme}://{urlsplit(self.aws.endpoint_url).netloc}{path}"


Then = Callable[[Creation, str, Mapping[str, Any]], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Kind:
    """How resources of one type are created: by one call that takes the inputs, and what that leaves to do.

    Attributes:
        operation: Such as `lambda.CreateFunction`.
        id: A template of the inputs, of `{name}` and of what the call answered, such as `{ApiId}`.
        name: The parameter that takes the physical name; empty if a resource of this type has none.
        name_key: The input that declares the physical name.
        fields: Inputs by their path (`code`, `retryPolicy.maximumAge`), where the model does not name them alike.
        inside: A parameter that holds what the inputs name, as `Attributes` does for a queue.
        handled: Names, separated by spaces, of inputs that `then` reads.
        outputs: Templates as `id`, with `{region}` and `{account}`. What the call answered is there without them.
        complete: Called with the request before it is sent, for what needs more than one input.
        then: Called with the physical name and the answer, for further calls. Returns outputs.
    """

    operation: str
    id: str
    name: str = ""
    name_key: str = "name"
    fields: Mapping[str, Field] = field(default_factory=dict)
    inside: str = ""
    handled: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    complete: Callable[[Creation, dict[str, Any]], None] = lambda *_: None
    then: Then = lambda *_: None

    def __call__(self, creation: Creation) -> Created:
        """Creates one resource.

        Raises:
            CreationError: For an input that is not mapped, and for a region that is not the emulator's.
        """
        service, _, operation = self.operation.partition(".")
        region = creation.inputs.get("region", REGION)
        if region != REGION:
            raise CreationError(f"region is {region!r}, but the local stack has only {REGION!r}")
        left_out = {"region", *self.handled.split(), *_FOR_THE_PROVIDER} - set(self.fields)
        name = creation.physical_name(self.name_key)
        if self.name:
            left_out |= {self.name_key, f"{self.name_key}Prefix"}
        client = creation.aws[service]
        request = translate(
            {key: value for key, value in creation.inputs.items() if key not in left_out},
            client.meta.service_model.operation_model(operation).input_shape,
            self.fields,
            inside=self.inside,
        )
        if self.name:
            _put(request, self.name, name)
        self.complete(creation, request)
        answer = getattr(client, xform_name(operation))(**request)
        answer.pop("ResponseMetadata", None)
        inner = [value for value in answer.values() if isinstance(value, dict)]
        if len(answer) == 1 and inner:  # {"Role": {…}}
            (answer,) = inner
        words = {**_DEFAULTS, **creation.inputs, **answer, "name": name}
        # Only what has one form in both worlds: a record here may be a list of records there.
        plain = {key[0].lower() + key[1:]: _plain(value) for key, value in answer.items()}
        outputs = {k: v for k, v in plain.items() if isinstance(v, str | int) and k not in creation.inputs}
        if self.name:
            outputs[self.name_key] = name
        if "tags" in creation.inputs:
            outputs["tagsAll"] = creation.inputs["tags"]
        outputs |= {key: template.format(**words) for key, template in self.outputs.items()}
        return Created(self.id.format(**words), {**outputs, **(self.then(creation, name, answer) or {})})


Creator = Callable[[Creation], Created]


def translate(
    values: Mapping[str, Any], shape: Any, fields: Mapping[str, Field], *, at: str = "", inside: str = ""
) -> dict[str, Any]:
    """Renames and converts `values` by botocore's shape of a structure; raises `CreationError` for what it lacks."""
    paths = {key: f"{at}.{key}" if at else key for key in values}
    targets = {key: fields.get(path) or _member(shape, key, inside) for key, path in paths.items()}
    unmapped = sorted(paths[key] for key, target in targets.items() if target is None)
    if unmapped:
        raise CreationError(f"the local stack does not map the input {', '.join(unmapped)}; add it to its creator")
    translated: dict[str, Any] = {}
    for key, target in targets.items():
        if isinstance(target, tuple):
            parameter, convert = target
            try:
                value = convert(values[key])
            except CreationError as error:
                raise CreationError(f"in {paths[key]}: {error}") from None
        else:
            parameter = str(target)
            value = _converted(values[key], _at(shape, parameter), fields, paths[key])
        _put(translated, parameter, value)
    return translated


def _put(request: dict[str, Any], path: str, value: Any) -> None:
    *outer, last = path.split(".")
    for word in outer:
        request = request.setdefault(word, {})
    request[last] = value


def _names(shape: Any) -> list[str]:
    """What a structure may hold, or a map whose keys are listed."""
    shape = shape.member if shape.type_name == "list" else shape
    if shape.type_name == "structure":
        return list(shape.members)
    return list(getattr(shape.key, "enum", ()))


def _at(shape: Any, path: str) -> Any:
    for word in path.split("."):
        shape = shape.member if shape.type_name == "list" else shape
        shape = shape.members[word] if shape.type_name == "structure" else shape.value
    return shape


def _member(shape: Any, key: str, inside: str) -> str | None:
    """The parameter that is named like an input but for its case, and for an s: Pulumi has a plural for a list."""
    for within, names in (("", _names(shape)), (f"{inside}.", _names(_at(shape, inside)) if inside else [])):
        by_name = {name.lower(): name for name in names}
        for spelled in (key.lower(), key.lower().removesuffix("s"), f"{key.lower()}s"):
            if spelled in by_name:
                return within + by_name[spelled]
    return None


def _converted(value: Any, shape: Any, fields: Mapping[str, Field], path: str) -> Any:
    """A value as the shape has it; what cannot be converted stays as it is, for botocore to refuse."""
    kind = shape.type_name
    if kind == "structure":
        if isinstance(value, Mapping):
            return translate(value, shape, fields, at=path)
        (only,) = shape.members if len(shape.members) == 1 else (None,)
        return {only: _converted(value, shape.members[only], fields, path)} if only else value
    if kind == "list":
        if isinstance(value, Mapping):
            pair = list(shape.member.members) if shape.member.type_name == "structure" else []
            if len(pair) == 2 and pair[1].endswith("Value"):  # tags, dimensions
                return [{pair[0]: name, pair[1]: each} for name, each in value.items()]
            value = [value]  # Pulumi shows a list that holds one at most as the one
        return [_converted(each, shape.member, fields, path) for each in value] if isinstance(value, list) else value
    if kind == "map" and isinstance(value, Mapping):
        return {name: _converted(each, shape.value, fields, path) for name, each in value.items()}
    if kind == "string" and not isinstance(value, str):
        return json.dumps(value)  # a policy as an object, a number or a flag among attributes
    number = {"integer": int, "long": int, "float": float, "double": float}.get(kind)
    try:
        return number(value) if number and not isinstance(value, bool) else value
    except (TypeError, ValueError):
        return value


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime.datetime) else value
