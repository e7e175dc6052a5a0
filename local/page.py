"""The page of a running stack: what `local.server` serves, put together with the stack it is for."""

from __future__ import annotations

import boto3

from local.emulator import CREDENTIALS, REGION
from local.server import PageServer
from local.stack import LocalStack


def page_of(stack: LocalStack, port: int = 0) -> PageServer:
    """A server to be entered; the stack must have a documents bucket."""
    session = boto3.Session(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
    return PageServer(
        websocket_url=stack.outputs["websocketUrl"],
        bucket=stack.outputs["documentsBucket"],
        media_types=stack.outputs["documentMediaTypes"],
        s3_client=session.client("s3", endpoint_url=stack.emulator.endpoint_url, region_name=REGION),
        port=port,
    )
