"""DynamoDB tables, S3 buckets and SQS queues."""

from collections.abc import Callable, Mapping
from typing import Any

from .creation import (
    REGION,
    Created,
    Creation,
    Creator,
    Field,
    json_text,
    pascal,
    record,
    records,
    tag_list,
    translate,
)

_ON_DEMAND = record({"maxReadRequestUnits": "MaxReadRequestUnits", "maxWriteRequestUnits": "MaxWriteRequestUnits"})


def _key_schema(hash_key: str, range_key: str | None) -> list[dict[str, str]]:
    keys = [{"AttributeName": hash_key, "KeyType": "HASH"}]
    return [*keys, {"AttributeName": range_key, "KeyType": "RANGE"}] if range_key else keys


def _throughput(owner: Mapping[str, Any], table_inputs: Mapping[str, Any]) -> dict[str, Any]:
    if table_inputs.get("billingMode") == "PAY_PER_REQUEST":
        return {}
    return {
        "ProvisionedThroughput": {
            "ReadCapacityUnits": owner["readCapacity"],
            "WriteCapacityUnits": owner["writeCapacity"],
        }
    }


def _index(inputs: Mapping[str, Any], index: Mapping[str, Any], *, local: bool) -> dict[str, Any]:
    """A secondary index as CreateTable takes it; a local one shares the table's partition key and throughput."""
    plain = ("hashKey", "rangeKey", "nonKeyAttributes", "projectionType", "readCapacity", "writeCapacity")
    request = translate(
        {key: value for key, value in index.items() if key not in plain},
        {
            "name": "IndexName",
            "keySchemas": ("KeySchema", records(pascal("attributeName keyType"))),
            "onDemandThroughput": ("OnDemandThroughput", _ON_DEMAND),
        },
    )
    request["Projection"] = {"ProjectionType": index["projectionType"]}
    if "nonKeyAttributes" in index:
        request["Projection"]["NonKeyAttributes"] = index["nonKeyAttributes"]
    if "keySchemas" not in index:
        hash_key = inputs["hashKey"] if local else index["hashKey"]
        request["KeySchema"] = _key_schema(hash_key, index.get("rangeKey"))
    return request if local else request | _throughput(index, inputs)


def table(creation: Creation) -> Created:
    inputs = creation.inputs
    name = creation.physical_name()
    request = creation.request(
        {
            "billingMode": "BillingMode",
            "deletionProtectionEnabled": "DeletionProtectionEnabled",
            "tableClass": "TableClass",
            "tags": ("Tags", tag_list),
            "attributes": (
                "AttributeDefinitions",
                records({"name": "AttributeName", "type": "AttributeType"}),
            ),
            "globalSecondaryIndexes": (
                "GlobalSecondaryIndexes",
                lambda each: [_index(inputs, index, local=False) for index in each],
            ),
            "localSecondaryIndexes": (
                "LocalSecondaryIndexes",
                lambda each: [_index(inputs, index, local=True) for index in each],
            ),
            "onDemandThroughput": ("OnDemandThroughput", _ON_DEMAND),
            "serverSideEncryption": (
                "SSESpecification",
                lambda value: (
                    {"SSEType": "KMS"} | translate(value, {"enabled": "Enabled", "kmsKeyArn": "KMSMasterKeyId"})
                ),
            ),
        },
        handled="name hashKey rangeKey readCapacity writeCapacity streamEnabled streamViewType ttl pointInTimeRecovery",
    )
    if inputs.get("streamEnabled"):
        request["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": inputs["streamViewType"]}
    dynamodb = creation.aws["dynamodb"]
    description = dynamodb.create_table(
        TableName=name,
        KeySchema=_key_schema(inputs["hashKey"], inputs.get("rangeKey")),
        **_throughput(inputs, inputs),
        **request,
    )["TableDescription"]
    if description["TableStatus"] != "ACTIVE":
        dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    if inputs.get("ttl", {}).get("enabled"):
        dynamodb.update_time_to_live(
            TableName=name,
            TimeToLiveSpecification=translate(inputs["ttl"], pascal("attributeName enabled")),
        )
    if "pointInTimeRecovery" in inputs:
        dynamodb.update_continuous_backups(
            TableName=name,
            PointInTimeRecoverySpecification=translate(
                inputs["pointInTimeRecovery"],
                {"enabled": "PointInTimeRecoveryEnabled", "recoveryPeriodInDays": "RecoveryPeriodInDays"},
            ),
        )
    return creation.created(
        name,
        name=name,
        arn=description["TableArn"],
        streamArn=description.get("LatestStreamArn", ""),
        streamLabel=description.get("LatestStreamLabel", ""),
    )


def bucket(creation: Creation) -> Created:
    name = creation.physical_name("bucket", prefix="bucketPrefix").lower()
    request = creation.request(
        {"bucket": "Bucket", "objectLockEnabled": "ObjectLockEnabledForBucket"},
        handled="bucketPrefix tags",
        ignored={"forceDestroy": "nothing is destroyed one by one"},
    )
    s3 = creation.aws["s3"]
    s3.create_bucket(**{**request, "Bucket": name})
    if "tags" in creation.inputs:
        s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tag_list(creation.inputs["tags"])})
    return creation.created(
        name,
        bucket=name,
        arn=f"arn:aws:s3:::{name}",
        bucketDomainName=f"{name}.s3.amazonaws.com",
        bucketRegion=REGION,
        bucketRegionalDomainName=f"{name}.s3.{REGION}.amazonaws.com",
        hostedZoneId="Z3AQBSTGFYJSTF",  # S3's own in us-east-1
    )


def _put_on_bucket(operation: str, fields: Mapping[str, Field], *, ignored: Mapping[str, str] | None = None) -> Creator:
    """A creator for a resource that is one `put_bucket_*` call. Its id is the bucket's name."""

    def create(creation: Creation) -> Created:
        request = creation.request(
            {"bucket": "Bucket", "expectedBucketOwner": "ExpectedBucketOwner", **fields}, ignored=ignored
        )
        getattr(creation.aws["s3"], operation)(**request)
        return creation.created(request["Bucket"])

    return create


def public_access_block(creation: Creation) -> Created:
    settings = creation.request(
        pascal("blockPublicAcls blockPublicPolicy ignorePublicAcls restrictPublicBuckets"),
        handled="bucket",
        ignored={"skipDestroy": "nothing is destroyed one by one"},
    )
    name = creation.inputs["bucket"]
    creation.aws["s3"].put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=settings)
    return creation.created(name)


_ENCRYPTION_RULES = records(
    {
        "bucketKeyEnabled": "BucketKeyEnabled",
        "blockedEncryptionTypes": ("BlockedEncryptionTypes", lambda types: {"EncryptionType": types}),
        "applyServerSideEncryptionByDefault": (
            "ApplyServerSideEncryptionByDefault",
            record({"sseAlgorithm": "SSEAlgorithm", "kmsMasterKeyId": "KMSMasterKeyID"}),
        ),
    }
)
_TAG = record(pascal("key value"))
_LIFECYCLE_FILTER: dict[str, Field] = {
    **pascal("objectSizeGreaterThan objectSizeLessThan prefix"),
    "tag": ("Tag", _TAG),
    "and": (
        "And",
        record(pascal("objectSizeGreaterThan objectSizeLessThan prefix") | {"tags": ("Tags", tag_list)}),
    ),
}
_LIFECYCLE_RULES = records(
    {
        "id": "ID",
        **pascal("prefix status"),
        "abortIncompleteMultipartUpload": (
            "AbortIncompleteMultipartUpload",
            record(pascal("daysAfterInitiation")),
        ),
        "expiration": ("Expiration", record(pascal("date days expiredObjectDeleteMarker"))),
        "filter": ("Filter", record(_LIFECYCLE_FILTER)),
        "noncurrentVersionExpiration": (
            "NoncurrentVersionExpiration",
            record(pascal("newerNoncurrentVersions noncurrentDays")),
        ),
        "noncurrentVersionTransitions": (
            "NoncurrentVersionTransitions",
            records(pascal("newerNoncurrentVersions noncurrentDays storageClass")),
        ),
        "transitions": ("Transitions", records(pascal("date days storageClass"))),
    }
)


def _lifecycle_rules(rules: Any) -> list[dict[str, Any]]:
    # A rule without a filter or a prefix is for all objects, and S3 wants that said.
    return [{"Filter": {"Prefix": ""}} | rule if "Prefix" not in rule else rule for rule in _LIFECYCLE_RULES(rules)]


def _notification_targets(target: Field, source: str) -> Callable[[Any], list[dict[str, Any]]]:
    def convert(targets: Any) -> list[dict[str, Any]]:
        converted = []
        for each in targets:
            plain = {key: value for key, value in each.items() if key not in ("filterPrefix", "filterSuffix")}
            entry = translate(plain, {"id": "Id", "events": "Events", source: target})
            rules = [
                {"Name": name, "Value": each[key]}
                for key, name in (("filterPrefix", "prefix"), ("filterSuffix", "suffix"))
                if key in each
            ]
            if rules:
                entry["Filter"] = {"Key": {"FilterRules": rules}}
            converted.append(entry)
        return converted

    return convert


def bucket_notification(creation: Creation) -> Created:
    configuration = creation.request(
        {
            "lambdaFunctions": (
                "LambdaFunctionConfigurations",
                _notification_targets("LambdaFunctionArn", "lambdaFunctionArn"),
            ),
            "queues": ("QueueConfigurations", _notification_targets("QueueArn", "queueArn")),
            "topics": ("TopicConfigurations", _notification_targets("TopicArn", "topicArn")),
        },
        handled="bucket eventbridge",
    )
    if creation.inputs.get("eventbridge"):
        configuration["EventBridgeConfiguration"] = {}
    name = creation.inputs["bucket"]
    creation.aws["s3"].put_bucket_notification_configuration(Bucket=name, NotificationConfiguration=configuration)
    return creation.created(name)


def queue(creation: Creation) -> Created:
    suffix = ".fifo" if creation.inputs.get("fifoQueue") else ""
    name = creation.physical_name(suffix=suffix)

    def text(value: Any) -> str:
        return json_text(value) if isinstance(value, str | dict) else str(value).lower()

    request = creation.request(
        {
            "tags": "tags",
            "contentBasedDeduplication": ("ContentBasedDeduplication", text),
            "deduplicationScope": "DeduplicationScope",
            "delaySeconds": ("DelaySeconds", text),
            "fifoQueue": ("FifoQueue", text),
            "fifoThroughputLimit": "FifoThroughputLimit",
            "kmsDataKeyReusePeriodSeconds": ("KmsDataKeyReusePeriodSeconds", text),
            "kmsMasterKeyId": "KmsMasterKeyId",
            "maxMessageSize": ("MaximumMessageSize", text),
            "messageRetentionSeconds": ("MessageRetentionPeriod", text),
            "policy": ("Policy", text),
            "receiveWaitTimeSeconds": ("ReceiveMessageWaitTimeSeconds", text),
            "redriveAllowPolicy": ("RedriveAllowPolicy", text),
            "redrivePolicy": ("RedrivePolicy", text),
            "sqsManagedSseEnabled": ("SqsManagedSseEnabled", text),
            "visibilityTimeoutSeconds": ("VisibilityTimeout", text),
        },
        handled="name namePrefix",
    )
    tags = request.pop("tags", {})
    sqs = creation.aws["sqs"]
    url = sqs.create_queue(QueueName=name, Attributes=request, tags=tags)["QueueUrl"]
    queue_arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    return creation.created(url, name=name, url=url, arn=queue_arn)


_ENCRYPTION = _put_on_bucket(
    "put_bucket_encryption",
    {"rules": ("ServerSideEncryptionConfiguration", lambda rules: {"Rules": _ENCRYPTION_RULES(rules)})},
)
_LIFECYCLE = _put_on_bucket(
    "put_bucket_lifecycle_configuration",
    {
        "rules": ("LifecycleConfiguration", lambda rules: {"Rules": _lifecycle_rules(rules)}),
        "transitionDefaultMinimumObjectSize": "TransitionDefaultMinimumObjectSize",
    },
    ignored={"timeouts": "they are for the provider's own waiting"},
)
_VERSIONING = _put_on_bucket(
    "put_bucket_versioning",
    {
        "mfa": "MFA",
        "versioningConfiguration": (
            "VersioningConfiguration",
            record({"status": "Status", "mfaDelete": "MFADelete"}),
        ),
    },
)
_CORS_RULES = records(pascal("allowedHeaders allowedMethods allowedOrigins exposeHeaders maxAgeSeconds") | {"id": "ID"})
_CORS = _put_on_bucket(
    "put_bucket_cors",
    {"corsRules": ("CORSConfiguration", lambda rules: {"CORSRules": _CORS_RULES(rules)})},
)

# pulumi_aws 7 keeps a deprecated `…V2` class beside each of these.
CREATORS: dict[str, Creator] = {
    "aws:dynamodb/table:Table": table,
    "aws:s3/bucket:Bucket": bucket,
    "aws:s3/bucketV2:BucketV2": bucket,
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": public_access_block,
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": _ENCRYPTION,
    "aws:s3/bucketServerSideEncryptionConfigurationV2:BucketServerSideEncryptionConfigurationV2": _ENCRYPTION,
    "aws:s3/bucketPolicy:BucketPolicy": _put_on_bucket("put_bucket_policy", {"policy": ("Policy", json_text)}),
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": _LIFECYCLE,
    "aws:s3/bucketLifecycleConfigurationV2:BucketLifecycleConfigurationV2": _LIFECYCLE,
    "aws:s3/bucketNotification:BucketNotification": bucket_notification,
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": _put_on_bucket(
        "put_bucket_ownership_controls",
        {
            "rule": (
                "OwnershipControls",
                lambda rule: {"Rules": [translate(rule, {"objectOwnership": "ObjectOwnership"})]},
            )
        },
    ),
    "aws:s3/bucketVersioning:BucketVersioning": _VERSIONING,
    "aws:s3/bucketVersioningV2:BucketVersioningV2": _VERSIONING,
    "aws:s3/bucketCorsConfiguration:BucketCorsConfiguration": _CORS,
    "aws:s3/bucketCorsConfigurationV2:BucketCorsConfigurationV2": _CORS,
    "aws:sqs/queue:Queue": queue,
}
