"""Closes a bucket: no ACLs, nothing public, TLS alone, encrypted. Only what its policy or a role names may enter."""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_aws as aws

from .policy import policy_document


def keep_private(
    name: str,
    bucket: aws.s3.Bucket,
    *statements: dict[str, Any],
    parent: pulumi.Resource,
    kms_key_arn: str | None = None,
) -> None:
    """
    Args:
        statements: what the bucket's policy allows, beside the refusal of all that comes without TLS.
        kms_key_arn: None for S3's own key.
    """
    # Never delete the guards separately: if deleting a non-empty bucket fails, it must still be private. They
    # disappear with the bucket.
    guard = pulumi.ResourceOptions(parent=parent, retain_on_delete=True)
    aws.s3.BucketOwnershipControls(
        f"{name}-ownership",
        bucket=bucket.id,
        rule={"object_ownership": "BucketOwnerEnforced"},
        opts=guard,
    )
    public_access_block = aws.s3.BucketPublicAccessBlock(
        f"{name}-no-public-access",
        bucket=bucket.id,
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
        opts=guard,
    )
    tls_only = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [bucket.arn, pulumi.Output.concat(bucket.arn, "/*")],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    aws.s3.BucketPolicy(
        f"{name}-tls-only",
        bucket=bucket.id,
        policy=policy_document(tls_only, *statements),
        # S3 refuses two changes of a bucket's policy and its public access at the same moment.
        opts=pulumi.ResourceOptions.merge(guard, pulumi.ResourceOptions(depends_on=[public_access_block])),
    )
    aws.s3.BucketServerSideEncryptionConfiguration(
        f"{name}-encryption",
        bucket=bucket.id,
        rules=[
            {
                "apply_server_side_encryption_by_default": {
                    "sse_algorithm": "aws:kms" if kms_key_arn else "AES256",
                    "kms_master_key_id": kms_key_arn,
                },
                # One data key for many objects, or each upload would be a paid call of KMS.
                "bucket_key_enabled": True if kms_key_arn else None,
            }
        ],
        opts=guard,
    )
