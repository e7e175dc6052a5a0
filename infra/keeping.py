"""What a stack must not lose by mistake: data, and URLs that are known outside."""

from __future__ import annotations

import pulumi


def kept(*, parent: pulumi.Resource, disposable: bool) -> pulumi.ResourceOptions:
    """Options of a resource that a plan refuses to delete or replace, unless the stack is disposable.

    The services' own deletion protection speaks only when its resource is deleted, after most of the others are gone.
    """
    return pulumi.ResourceOptions(parent=parent, protect=None if disposable else True)
