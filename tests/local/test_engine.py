"""Not proven here: that the Pulumi CLI would deploy the same, nor how a resource is created (test_creators)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from local.emulator import Emulator
from local.engine import DeployError, Deployment, ResourceCreated, deploy
from tests.local.scenarios import eventually


@pytest.fixture
def project(tmp_path: Path) -> Any:
    """Writes a program: `project("...")` gives the folder to deploy."""

    def write(program: str, config: str = "", stack: str = "") -> Path:
        (tmp_path / "Pulumi.yaml").write_text(f"name: small\nruntime: python\n{textwrap.dedent(config)}")
        if stack:
            (tmp_path / "Pulumi.local.yaml").write_text(textwrap.dedent(stack))
        source = "import json\nimport pulumi\nimport pulumi_aws as aws\n" + textwrap.dedent(program)
        (tmp_path / "__main__.py").write_text(source)
        return tmp_path

    return write


def failure(emulator: Emulator, folder: Path) -> str:
    return failure_at(emulator.endpoint_url, folder)


def failure_at(endpoint_url: str, folder: Path) -> str:
    with pytest.raises(DeployError) as raised:
        deploy(endpoint_url, project_dir=folder)
    return str(raised.value)


def test_a_program_is_deployed_and_its_outputs_come_back(emulator: Emulator, aws: Any, project: Any) -> None:
    folder = project(
        """
        config = pulumi.Config()

        class Pair(pulumi.ComponentResource):
            def __init__(self, name):
                super().__init__("test:index:Pair", name)
                self.first = aws.sqs.Queue(f"{name}-first", opts=pulumi.ResourceOptions(parent=self))
                self.second = aws.sqs.Queue(
                    f"{name}-second",
                    visibility_timeout_seconds=45,
                    redrive_policy=self.first.arn.apply(
                        lambda arn: json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})
                    ),
                    opts=pulumi.ResourceOptions(parent=self),
                )
                self.register_outputs({"second": self.second.url})

        pair = Pair("pair")
        pulumi.export("url", pair.second.url)
        pulumi.export("arns", [pair.first.arn, pair.second.arn])
        pulumi.export("count", config.require_int("count"))
        pulumi.export("half", 0.5)
        pulumi.export("secret", pulumi.Output.secret({"inner": "hidden"}))
        pulumi.export("given", config.require_secret("token"))
        pulumi.export("where", {
            "account": aws.get_caller_identity().account_id,
            "region": aws.get_region_output().region,
            "partition": aws.get_partition().partition,
            "stack": pulumi.get_stack(),
            "project": pulumi.get_project(),
        })
        """,
        "config:\n  count: {type: integer, default: 1}\n  token: {type: string, default: t, secret: true}\n",
        "config: {small:count: 2}\n",
    )
    created: list[ResourceCreated] = []
    outputs = deploy(emulator.endpoint_url, project_dir=folder, config={"count": "3"}, on_created=created.append)
    assert repr(outputs["count"]) == "3", "protobuf knows only doubles"
    assert outputs["half"] == 0.5
    assert outputs["secret"] == {"inner": "hidden"}
    assert outputs["given"] == "t"
    assert outputs["where"] == {
        "account": "000000000000",
        "region": "us-east-1",
        "partition": "aws",
        "stack": "local",
        "project": "small",
    }
    attributes = aws("sqs").get_queue_attributes(QueueUrl=outputs["url"], AttributeNames=["All"])["Attributes"]
    assert attributes["QueueArn"] == outputs["arns"][1]
    assert outputs["arns"][0] in attributes["RedrivePolicy"]
    assert attributes["VisibilityTimeout"] == "45"
    assert [(each.number, each.name) for each in created] == [(1, "pair-first"), (2, "pair-second")]
    assert {each.type for each in created} == {"aws:sqs/queue:Queue"}, "a component is no resource of AWS"


def test_what_the_program_prints_is_logged_and_never_mixes_with_the_outputs(emulator: Emulator, project: Any) -> None:
    folder = project("""
        print("hello")
        pulumi.warn("careful")
        pulumi.export("a", 1)
    """)
    lines: list[str] = []
    with Deployment(emulator.endpoint_url, project_dir=folder, on_log=lines.append) as deployment:
        assert deployment.wait() == {"a": 1}
    assert "hello" in lines
    assert "careful" in lines


def test_one_failed_resource_is_one_message_however_many_wait_for_it(
    emulator: Emulator, project: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = project("""
        table = aws.dynamodb.Table(
            "broken", hash_key="pk", billing_mode="PAY_PER_REQUEST", attributes=[{"name": "other", "type": "S"}]
        )
        for number in range(50):
            aws.sqs.Queue(f"queue-{number}", tags={"table": table.arn})
        pulumi.export("arn", table.arn)
    """)
    assert failure(emulator, folder) == (
        "broken (aws:dynamodb/table:Table): CreateTable answered ValidationException: "
        "Hash Key not specified in Attribute Definitions. Type unknown: pk"
    )
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_a_request_against_awss_own_model_is_told_before_it_is_sent(emulator: Emulator, project: Any) -> None:
    folder = project('aws.kms.Alias("short", name="alias/a", target_key_id="")')
    assert failure(emulator, folder) == (
        "short (aws:kms/alias:Alias): Parameter validation failed:\n"
        "Invalid length for parameter TargetKeyId, value: 0, valid min length: 1"
    )


def test_what_the_local_stack_does_not_know_has_a_stand_in_and_one_line(emulator: Emulator, project: Any) -> None:
    folder = project("""
        topic = aws.kinesis.Stream("h", shard_count=1, tags={"team": "docs"})
        zone = aws.route53.get_zone_output(name="example.com")
        old = aws.sqs.Queue.get("old", "https://sqs.us-east-1.amazonaws.com/1/old")
        # What refers to a stand-in stands for real.
        queue = aws.sqs.Queue("jobs", tags={"topic": topic.arn, "zone": zone.id, "old": old.id})
        pulumi.export("tags", queue.tags)
        pulumi.export("team", topic.tags["team"])
    """)
    lines: list[str] = []
    with Deployment(emulator.endpoint_url, project_dir=folder, on_log=lines.append) as deployment:
        outputs = deployment.wait()
    topic = outputs["tags"].pop("topic")
    assert re.fullmatch(r"arn:aws:kinesis:us-east-1:000000000000:h-[0-9a-f]{7}", topic)
    assert outputs == {
        "team": "docs",
        "tags": {"zone": "example.com", "old": "https://sqs.us-east-1.amazonaws.com/1/old"},
    }
    assert sorted(lines) == [
        "note: aws:route53/getZone:getZone is not answered by the local stack: what was asked for stands for it",
        "note: h (aws:kinesis/stream:Stream) is not on the local stack: a stand-in has its id, its arn and its inputs",
        "note: old (aws:sqs/queue:Queue) is read, and the local stack starts empty: a stand-in has its id and its arn",
    ]


def test_a_policy_document_is_made_as_the_provider_makes_it(emulator: Emulator, project: Any) -> None:
    folder = project("""
        trust = aws.iam.get_policy_document(statements=[{
            "sid": "Trust",
            "actions": ["sts:AssumeRole"],
            "principals": [{"type": "Service", "identifiers": ["lambda.amazonaws.com"]}],
            "conditions": [{"test": "StringEquals", "variable": "aws:SourceAccount", "values": ["000000000000"]}],
        }])
        role = aws.iam.Role("worker", assume_role_policy=trust.json)
        pulumi.export("policy", role.assume_role_policy)
    """)
    document = json.loads(deploy(emulator.endpoint_url, project_dir=folder)["policy"])
    assert document == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "Trust",
                "Effect": "Allow",
                "Action": ["sts:AssumeRole"],
                "Principal": {"Service": ["lambda.amazonaws.com"]},
                "Condition": {"StringEquals": {"aws:SourceAccount": ["000000000000"]}},
            }
        ],
    }


def test_an_input_that_nobody_maps_is_named(emulator: Emulator, project: Any) -> None:
    folder = project('aws.s3.Bucket("page", website={"index_document": "index.html"})')
    assert failure(emulator, folder) == (
        "page (aws:s3/bucket:Bucket): the local stack does not map the input website; add it to its creator"
    )


def test_a_mistake_in_the_program_shows_its_own_lines_only(emulator: Emulator, project: Any) -> None:
    folder = project("""
        def declare():
            raise ValueError("a rate of 0")

        declare()
    """)
    lines = failure(emulator, folder).splitlines()
    assert lines[0] == "the program failed:"
    assert lines[-1] == "ValueError: a rate of 0"
    files = {line.split('"')[1] for line in lines if line.startswith("  File ")}
    assert files == {str(folder / "__main__.py")}


def test_a_mistake_in_an_apply_fails_the_deployment(emulator: Emulator, project: Any) -> None:
    folder = project("""
        def parse(arn):
            raise ValueError(f"cannot use {arn}")

        pulumi.export("parsed", aws.sqs.Queue("late", name="late").arn.apply(parse))
    """)
    assert "ValueError: cannot use arn:aws:sqs:us-east-1:000000000000:late" in failure(emulator, folder)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ('raise pulumi.RunError("say only this")', "say only this"),
        ("import sys; sys.exit(3)", "the program ended itself with sys.exit(3)"),
        ("import os; os._exit(4)", "the engine ended with exit code 4 and without a word"),
        ('pulumi.Config().require("owner")', "Missing required configuration variable 'small:owner'"),
    ],
)
def test_a_program_that_gives_up_is_told_in_its_words(
    emulator: Emulator, project: Any, program: str, message: str
) -> None:
    assert failure(emulator, project(program)).startswith(message)


def test_bad_config_is_told_before_the_program_runs(emulator: Emulator, project: Any) -> None:
    folder = project('print("never")', "config: {rate: {type: integer, default: 1}}\n")
    with pytest.raises(DeployError, match="'small:rate' of stack 'local' must be of type integer, not 'x'"):
        deploy(emulator.endpoint_url, project_dir=folder, config={"rate": "x"})


def test_a_deployment_can_be_given_up_with_all_that_the_program_started(emulator: Emulator, project: Any) -> None:
    seconds = f"61.{os.getpid()}"  # to be told from that of another run on this machine
    folder = project(f"""
        import subprocess
        with subprocess.Popen(["sleep", "{seconds}"]) as process:
            print("sleeping")
    """)
    command = f"sleep\0{seconds}\0".encode()
    sleeping = threading.Event()
    with Deployment(emulator.endpoint_url, project_dir=folder, on_log=lambda _: sleeping.set()) as deployment:
        assert sleeping.wait(60)
        assert eventually(lambda: command in running_commands()), "any line that is logged sets the event"
        asked = time.monotonic()
        deployment.stop()
        assert time.monotonic() - asked < 30, "it waited for the program"
    assert command not in running_commands()


def running_commands() -> list[bytes]:
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            commands.append(path.read_bytes())
    return commands


def test_an_endpoint_where_nobody_answers_is_one_message(project: Any) -> None:
    message = failure_at("http://127.0.0.1:9", project('aws.sqs.Queue("queue")'))
    assert message.endswith('Could not connect to the endpoint URL: "http://127.0.0.1:9/"')
