"""Creates each resource that a program declares on the emulator.

Decides how a resource's inputs become API calls and which outputs come back. Knows nothing of Pulumi's protocol.
"""

from __future__ import annotations

from local.creators import api_gateway, functions, identity, monitoring, storage
from local.creators.creation import ACCOUNT, REGION, Clients, Created, Creation, CreationError, Kind

__all__ = ["KINDS", "Clients", "Created", "Creation", "CreationError", "create", "stand_in"]

KINDS: dict[str, Kind] = {
    **api_gateway.KINDS,
    **functions.KINDS,
    **identity.KINDS,
    **monitoring.KINDS,
    **storage.KINDS,
}

# Every stack has some, the emulator keeps none, and everything works without: no reason to print a line about each.
_STOOD_IN_FOR = {"aws:cloudwatch/queryDefinition:QueryDefinition"}


def create(creation: Creation) -> Created | None:
    """Creates one resource; None for a type that is unknown here.

    Raises:
        CreationError: When one of its inputs is not mapped.
        botocore.exceptions.BotoCoreError, ClientError: What AWS would have said.
    """
    if creation.type in _STOOD_IN_FOR:
        return stand_in(creation)
    # pulumi_aws 7 keeps a deprecated `…V2` class beside some of S3's.
    kind = KINDS.get(creation.type) or KINDS.get(creation.type.replace("V2", ""))
    return kind(creation) if kind else None


def stand_in(creation: Creation) -> Created:
    """What stands for a resource that is not created: an id, an ARN and names, so that others can refer to it."""
    name = creation.physical_name()
    service = creation.type.partition(":")[2].partition("/")[0]
    outputs = {"arn": f"arn:aws:{service}:{REGION}:{ACCOUNT}:{name}", "name": name}
    if creation.type == "aws:cloudfront/distribution:Distribution":
        # A name that leads nowhere, and looks it (RFC 2606).
        outputs["domainName"] = f"{name}.invalid"
    return Created(name, outputs)
