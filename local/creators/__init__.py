"""Creates each resource that a program declares on the emulator: one function a resource type.

Decides how a resource's inputs become API calls and which outputs come back. Knows nothing of Pulumi's protocol.
"""

import difflib

from . import api_gateway, functions, identity, monitoring, storage
from .creation import Clients, Created, Creation, CreationError, Creator

__all__ = ["CREATORS", "Clients", "Created", "Creation", "CreationError", "create"]

CREATORS: dict[str, Creator] = {
    **api_gateway.CREATORS,
    **functions.CREATORS,
    **identity.CREATORS,
    **monitoring.CREATORS,
    **storage.CREATORS,
}


def create(creation: Creation) -> Created:
    """Creates one resource.

    Raises:
        CreationError: When no creator exists for its type, or one of its inputs is not mapped.
        botocore.exceptions.BotoCoreError, ClientError: What AWS would have said.
    """
    creator = CREATORS.get(creation.type)
    if creator is None:
        nearest = difflib.get_close_matches(creation.type, CREATORS, 1)
        hint = f"; the nearest that it has is {nearest[0]}" if nearest else ""
        raise CreationError(f"the local stack has no creator for this type{hint}")
    return creator(creation)
