"""Not proven here: that AWS takes the same requests, beyond botocore's own check of their shape."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest

from local.creators import KINDS, Clients, Created, Creation, CreationError, create, stand_in
from local.emulator import CREDENTIALS, Emulator

TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})
Create = Callable[..., Created]


@pytest.fixture(scope="session")
def clients(emulator: Emulator) -> Iterator[Clients]:
    clients = Clients(emulator.endpoint_url, CREDENTIALS)
    yield clients
    clients.close()


@pytest.fixture(scope="session")
def nowhere() -> Iterator[Clients]:
    """Knows the services but reaches none: a request that is sent fails the test."""
    clients = Clients("http://127.0.0.1:9", CREDENTIALS)
    yield clients
    clients.close()


@pytest.fixture
def created(clients: Clients) -> Create:
    """Creates one resource: `created("aws:sqs/queue:Queue", name="jobs")`."""

    def create_one(type_token: str, /, logical_name: str = "thing", **inputs: Any) -> Created:
        resource = create(Creation(type_token, logical_name, inputs, clients))
        assert resource is not None
        return resource

    return create_one


@pytest.fixture
def function(created: Create, tmp_path: Path) -> Created:
    (tmp_path / "handler.py").write_text("def handler(event, context):\n    return {'statusCode': 200}\n")
    role = created("aws:iam/role:Role", assumeRolePolicy=TRUST)
    return created(
        "aws:lambda/function:Function",
        code=pulumi.FileArchive(str(tmp_path)),
        handler="handler.handler",
        role=role.outputs["arn"],
        runtime="python3.13",
        architectures=["arm64"],
        memorySize=256,
        reservedConcurrentExecutions=7,
        environment={"variables": {"A": "b"}},
    )


@pytest.mark.parametrize("type_token", KINDS)
def test_every_input_that_is_named_here_exists_in_pulumi_aws(type_token: str) -> None:
    module_name, class_name = re.fullmatch(r"aws:(\w+)/\w+:(\w+)", type_token).groups()  # type: ignore[union-attr]
    module = importlib.import_module(f"pulumi_aws.{module_name.replace('lambda', 'lambda_')}")
    parameters = inspect.signature(getattr(module, class_name)._internal_init).parameters
    known = {re.sub(r"_(\w)", lambda letter: letter[1].upper(), name) for name in parameters}
    kind = KINDS[type_token]
    named = {path.partition(".")[0] for path in kind.fields} | set(kind.handled.split())
    assert named | ({kind.name_key} if kind.name else set()) <= known


@pytest.mark.parametrize("type_token", KINDS)
def test_an_input_that_nothing_maps_is_refused_before_anything_is_created(type_token: str, nowhere: Clients) -> None:
    with pytest.raises(CreationError, match="does not map the input madeUp"):
        create(Creation(type_token, "thing", {"madeUp": 1}, nowhere))


@pytest.mark.parametrize(
    ("type_token", "inputs", "message"),
    [
        (
            "aws:apigatewayv2/stage:Stage",
            {"apiId": "a", "defaultRouteSettings": {"throttlingRate": 1}},
            "does not map the input defaultRouteSettings.throttlingRate",
        ),
        (
            "aws:dynamodb/table:Table",
            {"hashKey": "pk", "globalSecondaryIndexes": [{"name": "i", "projectionType": "ALL", "madeUp": 1}]},
            "does not map the input globalSecondaryIndexes.madeUp",
        ),
        (
            "aws:s3/bucketNotification:BucketNotification",
            {"bucket": "b", "lambdaFunctions": [{"madeUp": 1}]},
            "does not map the input lambdaFunctions.madeUp",
        ),
        ("aws:sqs/queue:Queue", {"region": "eu-west-1"}, "region is 'eu-west-1', but the local stack has only"),
        ("aws:lambda/function:Function", {"code": "text"}, "in code: is a str; the local stack takes a FileArchive"),
        (
            "aws:lambda/function:Function",
            {"code": pulumi.FileArchive("/nowhere.zip")},
            "in code: /nowhere.zip does not exist",
        ),
    ],
)
def test_what_cannot_be_mapped_is_said_with_its_place(
    type_token: str, inputs: Any, message: str, nowhere: Clients
) -> None:
    with pytest.raises(CreationError, match=re.escape(message)):
        create(Creation(type_token, "thing", inputs, nowhere))


def test_a_site_on_the_local_stack_has_a_url_that_leads_nowhere(nowhere: Clients) -> None:
    distribution = Creation("aws:cloudfront/distribution:Distribution", "site", {"name": "page"}, nowhere)
    assert create(distribution) is None
    assert stand_in(distribution).outputs["domainName"] == "page.invalid"


def test_a_type_that_is_unknown_here_has_a_stand_in_that_others_can_refer_to(nowhere: Clients) -> None:
    zone = Creation("aws:route53/record:Record", "www", {"name": "www.example.com"}, nowhere)
    assert create(zone) is None
    assert stand_in(zone) == Created(
        "www.example.com",
        {"name": "www.example.com", "arn": "arn:aws:route53:us-east-1:000000000000:www.example.com"},
    )
    unnamed = stand_in(Creation("aws:ecs/taskDefinition:TaskDefinition", "worker", {}, nowhere))
    assert re.fullmatch(r"worker-[0-9a-f]{7}", unnamed.id)


def test_a_name_is_made_as_pulumi_makes_it(created: Create) -> None:
    assert re.fullmatch(r"Jobs-[0-9a-f]{7}", created("aws:sqs/queue:Queue", "Jobs").outputs["name"])
    assert re.fullmatch(
        r"Jobs-[0-9a-f]{7}\.fifo", created("aws:sqs/queue:Queue", "Jobs", fifoQueue=True).outputs["name"]
    )
    assert re.fullmatch(r"docs-[0-9a-f]{7}", created("aws:s3/bucket:Bucket", "Docs").id), "buckets are lower case"
    assert re.fullmatch(r"in-[0-9a-f]{26}", created("aws:s3/bucket:Bucket", "Docs", bucketPrefix="in-").id)


def test_a_websocket_api_is_reached_by_path_on_this_machine(created: Create, emulator: Emulator, aws: Any) -> None:
    api = created("aws:apigatewayv2/api:Api", protocolType="WEBSOCKET", routeSelectionExpression="$request.body.action")
    at = f"127.0.0.1:{emulator.port}/_aws/execute-api/{api.id}"
    assert api.outputs["apiEndpoint"] == f"ws://{at}"
    assert api.outputs["executionArn"] == f"arn:aws:execute-api:us-east-1:000000000000:{api.id}"
    stage = created(
        "aws:apigatewayv2/stage:Stage",
        apiId=api.id,
        name="dev",
        defaultRouteSettings={"throttlingRateLimit": 10, "throttlingBurstLimit": 5, "loggingLevel": "INFO"},
        routeSettings=[{"routeKey": "$connect", "throttlingRateLimit": 1, "throttlingBurstLimit": 2}],
        accessLogSettings={"destinationArn": "arn:aws:logs:us-east-1:000000000000:log-group:a", "format": "{}"},
    )
    assert stage.outputs["invokeUrl"] == f"ws://{at}/dev"
    plain = created("aws:apigatewayv2/stage:Stage", apiId=api.id, name="plain")
    assert "routeSettings" not in plain.outputs, "API Gateway answers a map, and a program reads a list"
    assert stage.outputs["executionArn"] == f"{api.outputs['executionArn']}/dev"
    real = aws("apigatewayv2").get_stage(ApiId=api.id, StageName="dev")
    assert real["DefaultRouteSettings"] == {
        "LoggingLevel": "INFO",
        "ThrottlingBurstLimit": 5,
        "ThrottlingRateLimit": 10.0,
    }
    assert real["RouteSettings"]["$connect"]["ThrottlingBurstLimit"] == 2
    http = created("aws:apigatewayv2/api:Api", protocolType="HTTP", corsConfiguration={"allowOrigins": ["*"]})
    assert http.outputs["apiEndpoint"].startswith("http://127.0.0.1:")


def test_a_domain_name_is_mapped_with_a_certificate(created: Create, aws: Any) -> None:
    certificate = created(
        "aws:acm/certificate:Certificate", domainName="live.example.com", validationMethod="DNS"
    ).outputs
    (validation,) = certificate["domainValidationOptions"]
    assert set(validation) == {"domainName", *(f"resourceRecord{key}" for key in ("Name", "Type", "Value"))}
    created(
        "aws:acm/certificateValidation:CertificateValidation",
        certificateArn=certificate["arn"],
        validationRecordFqdns=[validation["resourceRecordName"]],
    )
    domain = created(
        "aws:apigatewayv2/domainName:DomainName",
        domainName="live.example.com",
        domainNameConfiguration={
            "certificateArn": certificate["arn"],
            "endpointType": "REGIONAL",
            "securityPolicy": "TLS_1_2",
            "ipAddressType": "dualstack",
        },
    )
    assert domain.id == "live.example.com"
    configuration = domain.outputs["domainNameConfiguration"]
    assert (configuration["targetDomainName"][:2], configuration["ipAddressType"]) == ("d-", "dualstack")
    api = created("aws:apigatewayv2/api:Api", protocolType="WEBSOCKET")
    stage = created("aws:apigatewayv2/stage:Stage", apiId=api.id, name="dev")
    mapping = created(
        "aws:apigatewayv2/apiMapping:ApiMapping", apiId=api.id, domainName=domain.id, stage=stage.id, apiMappingKey="v1"
    )
    real = aws("apigatewayv2").get_api_mapping(DomainName=domain.id, ApiMappingId=mapping.id)
    assert (real["ApiMappingKey"], real["Stage"]) == ("v1", "dev")


def test_routes_with_their_integration_and_response_stand(created: Create, aws: Any, function: Created) -> None:
    api = created("aws:apigatewayv2/api:Api", protocolType="WEBSOCKET")
    integration = created(
        "aws:apigatewayv2/integration:Integration",
        apiId=api.id,
        integrationType="AWS_PROXY",
        integrationUri=function.outputs["invokeArn"],
        credentialsArn="arn:aws:iam::000000000000:role/invoke",
        timeoutMilliseconds=5000,
    )
    route = created(
        "aws:apigatewayv2/route:Route",
        apiId=api.id,
        routeKey="$default",
        routeResponseSelectionExpression="$default",
        target=f"integrations/{integration.id}",
    )
    response = created(
        "aws:apigatewayv2/routeResponse:RouteResponse", apiId=api.id, routeId=route.id, routeResponseKey="$default"
    )
    deployment = created("aws:apigatewayv2/deployment:Deployment", apiId=api.id, triggers={"hash": "x"})
    gateway = aws("apigatewayv2")
    assert gateway.get_integration(ApiId=api.id, IntegrationId=integration.id)["TimeoutInMillis"] == 5000
    assert gateway.get_route(ApiId=api.id, RouteId=route.id)["Target"] == f"integrations/{integration.id}"
    assert gateway.get_route_responses(ApiId=api.id, RouteId=route.id)["Items"][0]["RouteResponseId"] == response.id
    assert gateway.get_deployment(ApiId=api.id, DeploymentId=deployment.id)["DeploymentStatus"] == "DEPLOYED"


def test_authorizers_of_both_kinds_stand(created: Create, aws: Any, function: Created) -> None:
    websocket = created("aws:apigatewayv2/api:Api", protocolType="WEBSOCKET")
    request = created(
        "aws:apigatewayv2/authorizer:Authorizer",
        apiId=websocket.id,
        authorizerType="REQUEST",
        authorizerUri=function.outputs["invokeArn"],
        identitySources=["route.request.querystring.token"],
    )
    real = aws("apigatewayv2").get_authorizer(ApiId=websocket.id, AuthorizerId=request.id)
    assert real["IdentitySource"] == ["route.request.querystring.token"]
    pool = created("aws:cognito/userPool:UserPool", usernameAttributes=["email"], passwordPolicy={"minimumLength": 12})
    client = created(
        "aws:cognito/userPoolClient:UserPoolClient",
        userPoolId=pool.id,
        explicitAuthFlows=["ALLOW_USER_PASSWORD_AUTH"],
        allowedOauthFlows=["code"],
        allowedOauthFlowsUserPoolClient=True,
        allowedOauthScopes=["openid"],
        callbackUrls=["http://localhost/"],
    )
    domain = created("aws:cognito/userPoolDomain:UserPoolDomain", domain="a-domain", userPoolId=pool.id)
    assert domain.id == "a-domain"
    described = aws("cognito-idp").describe_user_pool(UserPoolId=pool.id)["UserPool"]
    assert described["Policies"]["PasswordPolicy"]["MinimumLength"] == 12
    http = created("aws:apigatewayv2/api:Api", protocolType="HTTP")
    created(
        "aws:apigatewayv2/authorizer:Authorizer",
        apiId=http.id,
        authorizerType="JWT",
        identitySources=["$request.header.Authorization"],
        jwtConfiguration={"audiences": [client.id], "issuer": f"https://{pool.outputs['endpoint']}"},
    )


def test_a_function_has_its_code_settings_and_concurrency(function: Created, aws: Any, created: Create) -> None:
    assert function.outputs["arn"] == f"arn:aws:lambda:us-east-1:000000000000:function:{function.id}"
    assert function.outputs["invokeArn"] == (
        f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{function.outputs['arn']}/invocations"
    )
    client = aws("lambda")
    real = client.get_function(FunctionName=function.id)
    assert real["Configuration"]["Architectures"] == ["arm64"]
    assert real["Configuration"]["MemorySize"] == 256
    assert real["Concurrency"]["ReservedConcurrentExecutions"] == 7
    assert json.load(client.invoke(FunctionName=function.id, Payload=b"{}")["Payload"]) == {"statusCode": 200}
    permission = created(
        "aws:lambda/permission:Permission",
        action="lambda:InvokeFunction",
        function=function.id,
        principal="s3.amazonaws.com",
        sourceArn="arn:aws:s3:::b",
    )
    policy = json.loads(client.get_policy(FunctionName=function.id)["Policy"])
    assert [statement["Sid"] for statement in policy["Statement"]] == [permission.id]


def test_a_zip_and_a_folder_are_both_taken_as_code(created: Create, aws: Any, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("handler.py", "def handler(event, context):\n    return 'zipped'\n")
    (tmp_path / "code.zip").write_bytes(buffer.getvalue())
    role = created("aws:iam/role:Role", assumeRolePolicy=TRUST)
    function = created(
        "aws:lambda/function:Function",
        code=pulumi.FileArchive(str(tmp_path / "code.zip")),
        handler="handler.handler",
        role=role.outputs["arn"],
        runtime="python3.13",
    )
    assert json.load(aws("lambda").invoke(FunctionName=function.id, Payload=b"{}")["Payload"]) == "zipped"


def test_failures_of_a_function_go_to_its_queue(created: Create, aws: Any, function: Created) -> None:
    queue = created("aws:sqs/queue:Queue")
    config = created(
        "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig",
        functionName=function.id,
        maximumRetryAttempts=1,
        destinationConfig={"onFailure": {"destination": queue.outputs["arn"]}},
    )
    real = aws("lambda").get_function_event_invoke_config(FunctionName=config.id)
    assert real["MaximumRetryAttempts"] == 1
    assert real["DestinationConfig"]["OnFailure"]["Destination"] == queue.outputs["arn"]


def test_a_stream_feeds_a_function(created: Create, aws: Any, function: Created) -> None:
    table = created(
        "aws:dynamodb/table:Table",
        attributes=[{"name": "pk", "type": "S"}],
        billingMode="PAY_PER_REQUEST",
        hashKey="pk",
        streamEnabled=True,
        streamViewType="OLD_IMAGE",
    )
    mapping = created(
        "aws:lambda/eventSourceMapping:EventSourceMapping",
        eventSourceArn=table.outputs["streamArn"],
        functionName=function.id,
        startingPosition="LATEST",
        filterCriteria={"filters": [{"pattern": '{"eventName":["REMOVE"]}'}]},
        destinationConfig={"onFailure": {"destinationArn": "arn:aws:sqs:us-east-1:000000000000:q"}},
    )
    real = aws("lambda").get_event_source_mapping(UUID=mapping.id)
    assert real["EventSourceArn"] == table.outputs["streamArn"]
    assert real["FilterCriteria"]["Filters"] == [{"Pattern": '{"eventName":["REMOVE"]}'}]


def test_a_table_has_its_keys_indexes_and_time_to_live(created: Create, aws: Any) -> None:
    table = created(
        "aws:dynamodb/table:Table",
        attributes=[{"name": name, "type": "S"} for name in ("pk", "sk", "connection_id", "other")],
        billingMode="PAY_PER_REQUEST",
        hashKey="pk",
        rangeKey="sk",
        ttl={"attributeName": "expires_at", "enabled": True},
        pointInTimeRecovery={"enabled": True},
        serverSideEncryption={"enabled": True},
        deletionProtectionEnabled=True,
        globalSecondaryIndexes=[
            {"name": "by_connection", "hashKey": "connection_id", "projectionType": "KEYS_ONLY"},
            {
                "name": "by_other",
                "keySchemas": [{"attributeName": "other", "keyType": "HASH"}],
                "projectionType": "INCLUDE",
                "nonKeyAttributes": ["a"],
            },
        ],
        localSecondaryIndexes=[{"name": "by_local", "rangeKey": "other", "projectionType": "ALL"}],
        tags={"team": "docs"},
    )
    client = aws("dynamodb")
    real = client.describe_table(TableName=table.id)["Table"]
    assert table.outputs["arn"] == real["TableArn"]
    assert [(key["AttributeName"], key["KeyType"]) for key in real["KeySchema"]] == [("pk", "HASH"), ("sk", "RANGE")]
    indexes = {index["IndexName"]: index for index in real["GlobalSecondaryIndexes"]}
    assert indexes["by_connection"]["Projection"] == {"ProjectionType": "KEYS_ONLY"}
    assert indexes["by_other"]["KeySchema"] == [{"AttributeName": "other", "KeyType": "HASH"}]
    assert indexes["by_other"]["Projection"]["NonKeyAttributes"] == ["a"]
    local = real["LocalSecondaryIndexes"][0]["KeySchema"]
    assert [key["AttributeName"] for key in local] == ["pk", "other"]
    assert real["DeletionProtectionEnabled"] is True
    ttl = client.describe_time_to_live(TableName=table.id)["TimeToLiveDescription"]
    assert (ttl["AttributeName"], ttl["TimeToLiveStatus"]) == ("expires_at", "ENABLED")
    backups = client.describe_continuous_backups(TableName=table.id)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"


def test_a_bucket_has_all_its_settings(created: Create, aws: Any, function: Created) -> None:
    bucket = created("aws:s3/bucket:Bucket", "Docs", forceDestroy=True, tags={"team": "docs"})
    name = bucket.id
    assert bucket.outputs["arn"] == f"arn:aws:s3:::{name}"
    assert bucket.outputs["bucketRegionalDomainName"] == f"{name}.s3.us-east-1.amazonaws.com"
    policy = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:DeleteObject",
                    "Resource": f"{bucket.outputs['arn']}/*",
                }
            ],
        }
    )
    created(
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        bucket=name,
        blockPublicAcls=True,
        restrictPublicBuckets=True,
    )
    created(
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        bucket=name,
        rules=[{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}, "bucketKeyEnabled": True}],
    )
    created("aws:s3/bucketPolicy:BucketPolicy", bucket=name, policy=policy)
    created(
        "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        bucket=name,
        rules=[
            {"id": "all", "status": "Enabled", "expiration": {"days": 1}},
            {
                "id": "some",
                "status": "Enabled",
                "filter": {"and": {"prefix": "a/", "tags": {"k": "v"}}},
                "noncurrentVersionExpiration": {"noncurrentDays": 3},
            },
        ],
    )
    created("aws:s3/bucketVersioning:BucketVersioning", bucket=name, versioningConfiguration={"status": "Enabled"})
    created(
        "aws:s3/bucketOwnershipControls:BucketOwnershipControls",
        bucket=name,
        rule={"objectOwnership": "BucketOwnerEnforced"},
    )
    created(
        "aws:s3/bucketCorsConfiguration:BucketCorsConfiguration",
        bucket=name,
        corsRules=[{"allowedMethods": ["PUT"], "allowedOrigins": ["*"], "maxAgeSeconds": 300}],
    )
    created(
        "aws:lambda/permission:Permission",
        action="lambda:InvokeFunction",
        function=function.id,
        principal="s3.amazonaws.com",
        sourceArn=bucket.outputs["arn"],
    )
    created(
        "aws:s3/bucketNotification:BucketNotification",
        bucket=name,
        lambdaFunctions=[
            {
                "lambdaFunctionArn": function.outputs["arn"],
                "events": ["s3:ObjectCreated:*"],
                "filterSuffix": ".pdf",
            }
        ],
    )
    s3 = aws("s3")
    assert s3.get_bucket_tagging(Bucket=name)["TagSet"] == [{"Key": "team", "Value": "docs"}]
    assert s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]["BlockPublicAcls"] is True
    encryption = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert encryption["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert json.loads(s3.get_bucket_policy(Bucket=name)["Policy"]) == json.loads(policy)
    rules = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert rules[0]["Filter"] == {"Prefix": ""}
    assert rules[1]["Filter"]["And"]["Tags"] == [{"Key": "k", "Value": "v"}]
    assert rules[1]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 3}
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    assert s3.get_bucket_cors(Bucket=name)["CORSRules"][0]["MaxAgeSeconds"] == 300
    notified = s3.get_bucket_notification_configuration(Bucket=name)["LambdaFunctionConfigurations"][0]
    assert notified["LambdaFunctionArn"] == function.outputs["arn"]
    assert notified["Filter"]["Key"]["FilterRules"] == [{"Name": "suffix", "Value": ".pdf"}]


def test_a_role_has_all_its_policies(created: Create, aws: Any) -> None:
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    role = created(
        "aws:iam/role:Role",
        assumeRolePolicy=TRUST,
        forceDetachPolicies=True,
        inlinePolicies=[{"name": "inline", "policy": json.dumps(document)}],
        tags={"team": "docs"},
    )
    policy = created("aws:iam/rolePolicy:RolePolicy", "own", role=role.id, policy=document)
    managed = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
    created("aws:iam/rolePolicyAttachment:RolePolicyAttachment", role=role.id, policyArn=managed)
    assert role.outputs["arn"] == f"arn:aws:iam::000000000000:role/{role.id}"
    assert policy.id == f"{role.id}:{policy.outputs['name']}"
    iam = aws("iam")
    assert set(iam.list_role_policies(RoleName=role.id)["PolicyNames"]) == {"inline", policy.outputs["name"]}
    own = iam.get_role_policy(RoleName=role.id, PolicyName=policy.outputs["name"])["PolicyDocument"]
    assert own == document
    attached = iam.list_attached_role_policies(RoleName=role.id)["AttachedPolicies"]
    assert [each["PolicyArn"] for each in attached] == [managed]


def test_a_key_and_its_alias_are_one(created: Create, aws: Any) -> None:
    key = created("aws:kms/key:Key", description="d", enableKeyRotation=True, deletionWindowInDays=7)
    alias = created("aws:kms/alias:Alias", name="alias/docs", targetKeyId=key.id)
    kms = aws("kms")
    assert kms.describe_key(KeyId=alias.outputs["name"])["KeyMetadata"]["Arn"] == key.outputs["arn"]
    assert alias.outputs["targetKeyArn"] == key.outputs["arn"]
    assert kms.get_key_rotation_status(KeyId=key.id)["KeyRotationEnabled"] is True


def test_a_log_group_keeps_its_events_as_long_as_told(created: Create, aws: Any) -> None:
    group = created("aws:cloudwatch/logGroup:LogGroup", name="/docs/a", retentionInDays=7, skipDestroy=True)
    created(
        "aws:cloudwatch/logMetricFilter:LogMetricFilter",
        "errors",
        logGroupName=group.id,
        pattern="ERROR",
        metricTransformation={"name": "Errors", "namespace": "Docs", "value": "1", "defaultValue": "0"},
    )
    logs = aws("logs")
    real = logs.describe_log_groups(logGroupNamePrefix="/docs/a")["logGroups"][0]
    assert real["retentionInDays"] == 7
    assert group.outputs["arn"] == "arn:aws:logs:us-east-1:000000000000:log-group:/docs/a"
    transformation = logs.describe_metric_filters(logGroupName=group.id)["metricFilters"][0]["metricTransformations"][0]
    assert (transformation["metricName"], transformation["defaultValue"]) == ("Errors", 0.0)


def test_alarms_on_a_metric_and_on_an_expression_stand(created: Create, aws: Any) -> None:
    simple = created(
        "aws:cloudwatch/metricAlarm:MetricAlarm",
        "simple",
        comparisonOperator="GreaterThanThreshold",
        evaluationPeriods=1,
        metricName="Errors",
        namespace="AWS/Lambda",
        period=60,
        statistic="Sum",
        threshold=0,
        dimensions={"FunctionName": "f"},
        okActions=["arn:aws:sns:us-east-1:000000000000:t"],
        treatMissingData="notBreaching",
    )
    ratio = created(
        "aws:cloudwatch/metricAlarm:MetricAlarm",
        "ratio",
        comparisonOperator="GreaterThanThreshold",
        evaluationPeriods=1,
        threshold=0.5,
        metricQueries=[
            {"id": "e1", "expression": "m1 * 2", "returnData": True},
            {"id": "m1", "metric": {"metricName": "Errors", "namespace": "AWS/Lambda", "period": 60, "stat": "Sum"}},
        ],
    )
    alarms = aws("cloudwatch").describe_alarms(AlarmNames=[simple.id, ratio.id])["MetricAlarms"]
    real = {alarm["AlarmName"]: alarm for alarm in alarms}
    assert real[simple.id]["Dimensions"] == [{"Name": "FunctionName", "Value": "f"}]
    assert real[simple.id]["AlarmArn"] == simple.outputs["arn"]
    assert real[ratio.id]["Threshold"] == 0.5, "the emulator keeps no more than this of metric queries"
    dashboard = created("aws:cloudwatch/dashboard:Dashboard", dashboardName="d", dashboardBody='{"widgets":[]}')
    assert json.loads(aws("cloudwatch").get_dashboard(DashboardName=dashboard.id)["DashboardBody"]) == {"widgets": []}


def test_a_rule_and_a_schedule_call_a_function(created: Create, aws: Any, function: Created) -> None:
    rule = created("aws:cloudwatch/eventRule:EventRule", "tick", scheduleExpression="rate(5 minutes)")
    created(
        "aws:cloudwatch/eventTarget:EventTarget",
        rule=rule.id,
        targetId="f",
        arn=function.outputs["arn"],
        retryPolicy={"maximumRetryAttempts": 1},
    )
    assert aws("events").list_targets_by_rule(Rule=rule.id)["Targets"][0]["RetryPolicy"]["MaximumRetryAttempts"] == 1
    schedule = created(
        "aws:scheduler/schedule:Schedule",
        "tick",
        flexibleTimeWindow={"mode": "OFF"},
        scheduleExpression="rate(1 minute)",
        target={"arn": function.outputs["arn"], "roleArn": "arn:aws:iam::000000000000:role/r", "input": "{}"},
    )
    group, name = schedule.id.split("/")
    real = aws("scheduler").get_schedule(GroupName=group, Name=name)
    assert real["Target"]["Arn"] == function.outputs["arn"]
    assert real["Arn"] == schedule.outputs["arn"]


def test_a_queue_has_its_attributes_and_a_url_that_works_here(created: Create, aws: Any) -> None:
    dead = created("aws:sqs/queue:Queue", "dead", messageRetentionSeconds=1209600)
    redrive = json.dumps({"deadLetterTargetArn": dead.outputs["arn"], "maxReceiveCount": 3})
    queue = created(
        "aws:sqs/queue:Queue", "jobs", redrivePolicy=redrive, visibilityTimeoutSeconds=60, sqsManagedSseEnabled=True
    )
    attributes = aws("sqs").get_queue_attributes(QueueUrl=queue.outputs["url"], AttributeNames=["All"])["Attributes"]
    assert attributes["VisibilityTimeout"] == "60"
    assert attributes["SqsManagedSseEnabled"] == "true"
    assert json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"] == dead.outputs["arn"]


def test_the_account_logs_through_a_role(created: Create, aws: Any) -> None:
    role = "arn:aws:iam::000000000000:role/logs"
    created("aws:apigateway/account:Account", cloudwatchRoleArn=role)
    assert aws("apigateway").get_account()["cloudwatchRoleArn"] == role
