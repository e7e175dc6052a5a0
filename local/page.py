"""The page of a running stack: what `local.server` serves, put together with the stack it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from local.emulator import CREDENTIALS, REGION
from local.server import PageServer
from local.stack import LocalStack

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


def page_of(stack: LocalStack, port: int = 0) -> PageServer:
    """A server to be entered; the stack must have a documents bucket."""
    return PageServer(
        websocket_url=stack.outputs["websocketUrl"],
        bucket=stack.outputs["documentsBucket"],
        media_types=stack.outputs["documentMediaTypes"],
        s3_client=s3_client_of(stack),
        port=port,
    )


def s3_client_of(stack: LocalStack) -> S3Client:
    session = boto3.Session(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
    # What boto3 signs links with by itself, the emulator does not take.
    version_4 = Config(signature_version="s3v4")
    return session.client("s3", endpoint_url=stack.emulator.endpoint_url, region_name=REGION, config=version_4)
