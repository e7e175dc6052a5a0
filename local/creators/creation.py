"""What creators are written with: one resource's inputs, strictly translated, and the clients that create it.

A creator says which of a resource's inputs it maps. An input that nobody maps is an error: were it dropped, the
local stack would differ from AWS without a word.
"""

import json
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

ACCOUNT = "000000000000"
REGION = "us-east-1"

# The name of a request parameter, alone or with a conversion of the value.
Field = str | tuple[str, Callable[[Any], Any]]


class CreationError(Exception):
    """A resource that cannot be created as declared. The message is meant for people."""


class Clients:
    """One boto3 client a service, shared by all threads, with the emulator's root credentials."""

    def __init__(self, endpoint_url: str) -> None:
        self.endpoint_url = endpoint_url
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()  # a client may be shared between threads, a session may not
        self._session: Any = boto3.Session("test", "test", region_name=REGION)

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

    def request(
        self,
        fields: Mapping[str, Field],
        *,
        handled: str = "",
        ignored: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Translates the inputs into the parameters of one API call.

        Args:
            fields: Input name to parameter.
            handled: Names, separated by spaces, of inputs that the creator reads from `inputs` itself.
            ignored: Inputs that have no meaning on an emulator, each with the reason.

        Raises:
            CreationError: For any other input, and for a region that is not the emulator's.
        """
        region = self.inputs.get("region", REGION)
        if region != REGION:
            raise CreationError(f"region is {region!r}, but the local stack has only {REGION!r}")
        left_out = {"region", *handled.split(), *(ignored or {})}
        return translate({key: value for key, value in self.inputs.items() if key not in left_out}, fields)

    def physical_name(self, key: str = "name", *, prefix: str = "namePrefix", suffix: str = "") -> str:
        """The declared physical name, or one made as Pulumi makes it: the logical name, a dash and 7 hex digits."""
        if key in self.inputs:
            return str(self.inputs[key])
        if prefix in self.inputs:
            return f"{self.inputs[prefix]}{secrets.token_hex(13)}{suffix}"
        return f"{self.name}-{secrets.token_hex(4)[:7]}{suffix}"

    def endpoint(self, scheme: str, path: str) -> str:
        """A URL on the emulator that works from this machine."""
        return f"{scheme}://{urlsplit(self.aws.endpoint_url).netloc}{path}"

    def created(self, resource_id: str, **outputs: Any) -> Created:
        if "tags" in self.inputs:
            outputs.setdefault("tagsAll", self.inputs["tags"])
        return Created(resource_id, outputs)


Creator = Callable[[Creation], Created]


def translate(values: Mapping[str, Any], fields: Mapping[str, Field], path: str = "") -> dict[str, Any]:
    """Renames and converts `values` by `fields`; raises `CreationError` naming every value without a field."""
    unmapped = sorted(f"{path}{key}" for key in values if key not in fields)
    if unmapped:
        raise CreationError(f"the local stack does not map the input {', '.join(unmapped)}; add it to its creator")
    translated = {}
    for key, value in values.items():
        field = fields[key]
        if isinstance(field, str):
            translated[field] = value
        else:
            parameter, convert = field
            try:
                translated[parameter] = convert(value)
            except CreationError as error:
                raise CreationError(f"in {path}{key}: {error}") from None
    return translated


def pascal(names: str) -> dict[str, Field]:
    """Fields whose parameters differ from the inputs by their first letter only."""
    return {name: name[0].upper() + name[1:] for name in names.split()}


def record(fields: Mapping[str, Field]) -> Callable[[Any], dict[str, Any]]:
    """A conversion for a nested object."""
    return lambda value: translate(value, fields)


def records(fields: Mapping[str, Field]) -> Callable[[Any], list[dict[str, Any]]]:
    """A conversion for a list of nested objects."""
    return lambda values: [translate(value, fields) for value in values]


def json_text(value: Any) -> str:
    """A policy or pattern as the API takes it; programs may give it as text or as an object."""
    return value if isinstance(value, str) else json.dumps(value)


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """The `Key`/`Value` list that most, but not all, services take."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"
