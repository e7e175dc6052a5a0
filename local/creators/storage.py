"""DynamoDB tables, S3 buckets and SQS queues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.creators.creation import Creation, Field, Kind

_KEYS = "hashKey rangeKey readCapacity writeCapacity streamEnabled streamViewType ttl pointInTimeRecovery"
_LOCAL_INDEX, _GLOBAL_INDEX = "localSecondaryIndexes", "globalSecondaryIndexes"
_INDEX_FIELDS: dict[str, Field] = {
    "name": "IndexName",
    "projectionType": "Projection.ProjectionType",
    "nonKeyAttributes": "Projection.NonKeyAttributes",
    "hashKey": ("KeySchema", str),  # completed below: the two are one list
    "rangeKey": ("RangeKey", str),
    "readCapacity": "ProvisionedThroughput.ReadCapacityUnits",
    "writeCapacity": "ProvisionedThroughput.WriteCapacityUnits",
}


def _key_schema(hash_key: str, range_key: str | None) -> list[dict[str, str]]:
    keys = [{"AttributeName": hash_key, "KeyType": "HASH"}]
    return [*keys, {"AttributeName": range_key, "KeyType": "RANGE"}] if range_key else keys


def _complete_table(creation: Creation, request: dict[str, Any]) -> None:
    inputs = creation.inputs
    request["KeySchema"] = _key_schema(inputs["hashKey"], inputs.get("rangeKey"))
    if inputs.get("billingMode") != "PAY_PER_REQUEST":
        throughput = {"ReadCapacityUnits": inputs["readCapacity"], "WriteCapacityUnits": inputs["writeCapacity"]}
        request["ProvisionedThroughput"] = throughput
    for index in [*request.get("GlobalSecondaryIndexes", []), *request.get("LocalSecondaryIndexes", [])]:
        range_key = index.pop("RangeKey", None)
        if not isinstance(index.get("KeySchema"), list):  # a local index shares the table's partition key
            index["KeySchema"] = _key_schema(index.get("KeySchema", inputs["hashKey"]), range_key)
    if inputs.get("streamEnabled"):
        request["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": inputs["streamViewType"]}
    if request.get("SSESpecification", {}).get("Enabled"):
        request["SSESpecification"]["SSEType"] = "KMS"


def _table(creation: Creation, name: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    dynamodb, inputs = creation.aws["dynamodb"], creation.inputs
    if answer["TableStatus"] != "ACTIVE":
        dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    if inputs.get("ttl", {}).get("enabled"):
        expiry = {"AttributeName": inputs["ttl"]["attributeName"], "Enabled": True}
        dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=expiry)
    if "pointInTimeRecovery" in inputs:
        given = inputs["pointInTimeRecovery"]
        days = {"RecoveryPeriodInDays": given["recoveryPeriodInDays"]} if "recoveryPeriodInDays" in given else {}
        recovery = {"PointInTimeRecoveryEnabled": given["enabled"], **days}
        dynamodb.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=recovery)
    return {"streamArn": answer.get("LatestStreamArn", ""), "streamLabel": answer.get("LatestStreamLabel", "")}


def _bucket(creation: Creation, name: str, _answer: Mapping[str, Any]) -> None:
    if "tags" in creation.inputs:
        tags = [{"Key": key, "Value": value} for key, value in creation.inputs["tags"].items()]
        creation.aws["s3"].put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})


def _complete_lifecycle(_creation: Creation, request: dict[str, Any]) -> None:
    for rule in request["LifecycleConfiguration"]["Rules"]:
        if "Prefix" not in rule:  # a rule without a filter or a prefix is for all objects, and S3 wants that said
            rule.setdefault("Filter", {"Prefix": ""})


def _complete_notification(_creation: Creation, request: dict[str, Any]) -> None:
    for targets in request.setdefault("NotificationConfiguration", {}).values():
        for target in targets if isinstance(targets, list) else []:
            filters = [
                (edge, target.pop(f"Filter{edge}")) for edge in ("Prefix", "Suffix") if f"Filter{edge}" in target
            ]
            if filters:
                rules = [{"Name": edge.lower(), "Value": value} for edge, value in filters]
                target["Filter"] = {"Key": {"FilterRules": rules}}


def _notification_fields() -> dict[str, Field]:
    fields: dict[str, Field] = {"eventbridge": ("NotificationConfiguration.EventBridgeConfiguration", lambda _: {})}
    for key, source in (("lambdaFunctions", "LambdaFunction"), ("queues", "Queue"), ("topics", "Topic")):
        fields[key] = f"NotificationConfiguration.{source}Configurations"
        fields |= {f"{key}.filter{edge}": (f"Filter{edge}", str) for edge in ("Prefix", "Suffix")}
    return fields


def _on_bucket(operation: str, inside: str = "", fields: Mapping[str, Field] | None = None, **options: Any) -> Kind:
    """What is one `PutBucket…` call. Its id is the bucket's name."""
    return Kind(f"s3.{operation}", "{bucket}", inside=inside, fields=fields or {}, **options)


_BUCKET = {
    "arn": "arn:aws:s3:::{name}",
    "bucketDomainName": "{name}.s3.amazonaws.com",
    "bucketRegion": "{region}",
    "bucketRegionalDomainName": "{name}.s3.{region}.amazonaws.com",
    "hostedZoneId": "Z3AQBSTGFYJSTF",  # S3's own in us-east-1
}

KINDS = {
    "aws:dynamodb/table:Table": Kind(
        "dynamodb.CreateTable",
        "{name}",
        name="TableName",
        fields={
            "attributes": "AttributeDefinitions",
            "attributes.name": "AttributeName",
            "attributes.type": "AttributeType",
            "serverSideEncryption": "SSESpecification",
            "serverSideEncryption.kmsKeyArn": "KMSMasterKeyId",
            **{f"{index}.{key}": to for key, to in _INDEX_FIELDS.items() for index in (_LOCAL_INDEX, _GLOBAL_INDEX)},
        },
        handled=_KEYS,
        complete=_complete_table,
        outputs={"arn": "{TableArn}"},
        then=_table,
    ),
    "aws:s3/bucket:Bucket": Kind(
        "s3.CreateBucket",
        "{name}",
        name="Bucket",
        name_key="bucket",
        fields={"objectLockEnabled": "ObjectLockEnabledForBucket"},
        handled="tags",
        outputs=_BUCKET,
        then=_bucket,
    ),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": _on_bucket(
        "PutPublicAccessBlock", "PublicAccessBlockConfiguration"
    ),
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": _on_bucket(
        "PutBucketEncryption", "ServerSideEncryptionConfiguration"
    ),
    "aws:s3/bucketPolicy:BucketPolicy": _on_bucket("PutBucketPolicy"),
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": _on_bucket(
        "PutBucketLifecycleConfiguration", "LifecycleConfiguration", complete=_complete_lifecycle
    ),
    "aws:s3/bucketNotification:BucketNotification": _on_bucket(
        "PutBucketNotificationConfiguration", fields=_notification_fields(), complete=_complete_notification
    ),
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": _on_bucket(
        "PutBucketOwnershipControls", fields={"rule": "OwnershipControls.Rules"}
    ),
    "aws:s3/bucketVersioning:BucketVersioning": _on_bucket("PutBucketVersioning"),
    "aws:s3/bucketCorsConfiguration:BucketCorsConfiguration": _on_bucket("PutBucketCors", "CORSConfiguration"),
    "aws:sqs/queue:Queue": Kind(
        "sqs.CreateQueue",
        "{QueueUrl}",
        name="QueueName",
        inside="Attributes",
        fields={
            "maxMessageSize": "Attributes.MaximumMessageSize",
            "messageRetentionSeconds": "Attributes.MessageRetentionPeriod",
            "receiveWaitTimeSeconds": "Attributes.ReceiveMessageWaitTimeSeconds",
            "visibilityTimeoutSeconds": "Attributes.VisibilityTimeout",
        },
        outputs={"url": "{QueueUrl}", "arn": "arn:aws:sqs:{region}:{account}:{name}"},
    ),
}
