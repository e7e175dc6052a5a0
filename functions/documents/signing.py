"""Whatever signs requests to the documents bucket that a browser makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.config import Config

from docprogress import clients

if TYPE_CHECKING:
    import boto3
    from botocore.session import Session
    from types_boto3_s3 import S3Client


def s3_client(session: boto3.Session | Session) -> S3Client:
    """A client whose forms and links go to the bucket's host in its own region.

    The global host redirects for hours after a bucket was made, and a redirect says nothing of CORS.
    """
    config = Config(signature_version="s3v4", s3={"addressing_style": "virtual"})
    made: S3Client = clients.client("s3", session, config)
    return made
