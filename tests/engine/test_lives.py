"""A stack's whole life on the real Pulumi engine, with what each change costs.

Not proven here: that AWS does what the emulator does, and what the program declares (tests/infra).
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pulumi
import pytest
import yaml
from websockets.sync.client import connect

from infra.document_kinds import KIND
from local.emulator import CREDENTIALS, REGION, Emulator
from local.sample_pdf import write_sample_pdf
from tests.engine.project import ROOT, EngineProject, Outcome
from tests.local.scenarios import PATIENCE_SECONDS, ask, receive_to_the_end
from tests.mock_engine import Graph, run_main
from tools.deployer_rights import EVERYTHING

CERTIFICATE = "arn:aws:acm:us-east-1:000000000000:certificate/of-somebody"
# The emulator has no zone to put records in: tools/deployer_rights.py lives with one.
NAMED = {"domainName": "live.example.com", "certificateArn": CERTIFICATE, "dualStack": True}
BY_TOKEN = {"authorization": "JWT", "jwtIssuer": "https://issuer.example.com", "jwtAudience": "app"}
OTHER_KINDS = {"documentKinds": [KIND.example], "documentUploads": True}
BY_SIGNATURE = {"authorization": "AWS_IAM", "fanOut": "stream", "cancellation": False, **OTHER_KINDS}

KEPT = {
    "authorization": "JWT",
    "createUserPool": True,
    "userPoolCallbackUrls": ["https://app.example.com/"],
    "userPoolDomainPrefix": "example-documents",
    "allowedOrigins": ["https://app.example.com"],
    "documentPipeline": True,
    "documentUploads": True,
    "documentResults": True,
}

# What the stage, S3 and the schedule go by until they are told of the new one.
REPLACED = (":Deployment", ":Permission", ":FunctionEventInvokeConfig")

ONE_AT_A_TIME = threading.Lock()  # Pulumi keeps a program's configuration in globals

pytestmark = pytest.mark.timeout(1200)


def declared(stack: str, settings: Mapping[str, Any]) -> Graph:
    """What the program declares with these settings."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    with ONE_AT_A_TIME:
        overrides = {"lambdaPackaging": "host", "aws:endpoints": "[{}]", **texts}
        return run_main(stack, overrides, answers={"api-account-logging-found": {"cloudwatchRoleArn": ""}})


def expected(before: Graph, after: Graph) -> Counter[str]:
    """What the engine must do to get from one graph to another, and nothing else."""

    def inputs(graph: Graph) -> dict[tuple[str, str], Any]:
        return {(each.type, each.name): plain(each.inputs) for each in graph}

    old, new = inputs(before), inputs(after)
    changed = {key for key in old.keys() & new.keys() if old[key] != new[key]}
    # Made anew before the old one goes, and the only ones: another replacement would lose data, a URL or requests.
    replaced = {key for key in changed if key[0].endswith(REPLACED) or key[1] == "api-invoke-functions"}
    if any(key[0].endswith(":Deployment") for key in replaced):
        # Its stage names it by its id, which never changes in the mock engine's graphs.
        changed |= {key for key in old.keys() & new.keys() if key[0] == "aws:apigatewayv2/stage:Stage"}
    counts = Counter(
        create=len(new.keys() - old.keys()),
        delete=len(old.keys() - new.keys()),
        update=len(changed - replaced),
        replace=len(replaced),
    )
    return +counts


def plain(value: Any) -> Any:
    """Archives are equal if they hold the same; to Python, none equals another."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return Path(value.path).name if isinstance(value, pulumi.FileArchive) else value


def changes(outcome: Outcome) -> Counter[str]:
    assert outcome.code == 0, str(outcome)
    return Counter({word: number for word, number in outcome.counts.items() if word != "unchanged"})


def hear_a_document(project: EngineProject, folder: Path, name: str = "heard") -> None:
    """Uploads one and hears it to its end, by the stack's own outputs."""
    outputs = project.outputs()
    session: Any = boto3.Session(*CREDENTIALS.values(), region_name=REGION)
    s3 = session.client("s3", endpoint_url=project.emulator.endpoint_url)
    pdf = folder / f"{name}.pdf"
    write_sample_pdf(pdf)
    with connect(outputs["websocketUrl"], open_timeout=PATIENCE_SECONDS, ping_interval=None) as connection:
        assert ask(connection, action="progress", docId=name)["status"] == "pending"
        s3.upload_file(str(pdf), outputs["documentsBucket"], pdf.name)
        heard = receive_to_the_end(connection)
    s3.close()
    assert (heard[0]["status"], heard[-1]["status"]) == ("processing_started", "processing_complete")


def deploy_once_more() -> str:
    """What docs/operations.md says to do when a route was removed."""
    (command,) = re.findall(r"`(pulumi up --replace [^`]+)`", (ROOT / "docs" / "operations.md").read_text())
    return str(command)


def disposable_life(project: EngineProject, folder: Path) -> None:
    nothing = Graph()
    settings: dict[str, Any] = {}

    def up(**given: Any) -> Counter[str]:
        before = declared(project.stack, settings)
        for key in settings.keys() - given.keys():
            project.set(**{key: None})
        project.set(**given)
        settings.clear()
        settings.update(given)
        outcome = project.up()
        assert changes(outcome) == expected(before, declared(project.stack, settings)), outcome
        return changes(outcome)

    all_of_it = expected(nothing, declared(project.stack, {})) + Counter(create=1)  # and the stack itself
    assert changes(project.preview()) == all_of_it
    assert changes(project.up()) == all_of_it
    hear_a_document(project, folder)
    assert changes(project.up()) == Counter(), "a second up finds nothing to change"

    assert up(apiThrottleRate=77) == Counter(update=1), "the stage alone"
    handler = project.root / "functions" / "connection_handler.py"
    handler.write_text(handler.read_text() + "\n# changed\n")
    assert changes(project.up()) == Counter(update=1), "the one function whose code it is"
    if project.stack == "local":  # the other changes are the same from stack to stack, and `dev` lives them meanwhile
        there = expected(nothing, declared(project.stack, settings))["create"] + 1
        assert changes(project.destroy(previewed=True)) == Counter(delete=there)
        return
    # A name and its mapping, their component, and the API's addresses.
    assert up(apiThrottleRate=77, **NAMED) == Counter(create=3, update=1)
    assert changes(project.up()) == Counter()
    assert up(**BY_TOKEN, **OTHER_KINDS)["replace"] == 2, "the deployment, and what the API may invoke"
    assert up()["replace"] == 2
    up(snapStart=True)
    hear_a_document(project, folder, "heard-from-a-snapshot")
    up()
    hear_a_document(project, folder, "heard-without")
    assert up(**BY_SIGNATURE)["replace"] == 1
    again = project.shell(f"{deploy_once_more()} --yes --skip-preview --non-interactive --color never")
    assert changes(again) == Counter(replace=1, update=1), "the deployment, and its stage"
    assert changes(project.up()) == Counter()
    assert changes(project.refresh()) == Counter(), "nothing stands otherwise than it was declared"

    there = expected(nothing, declared(project.stack, settings))["create"] + 1
    assert changes(project.destroy(previewed=True)) == Counter(delete=there)


def kept_life(project: EngineProject, folder: Path) -> None:
    """Of a stack that a plan must not harm, as every one is that does not say otherwise."""
    project.set(**KEPT)
    before = declared(project.stack, KEPT)
    assert changes(project.up()) == expected(Graph(), before) + Counter(create=1)
    assert changes(project.up()) == Counter()

    refused = project.destroy(previewed=True)
    assert refused.code != 0, refused
    assert "protected" in refused.output
    assert changes(project.up()) == Counter(), "the destroy that was refused took nothing"
    # docs/operations.md, "Rename a stack": the plan after it refuses, and the name before is the way back.
    settings = yaml.safe_load((project.program / "Pulumi.production-eu.yaml").read_text())
    assert project.rename("production-us").code == 0
    assert not (project.program / "Pulumi.production-eu.yaml").exists()
    assert yaml.safe_load((project.program / "Pulumi.production-us.yaml").read_text()) == settings
    refused = project.preview()
    assert refused.code != 0, refused
    assert "unable to replace resource" in refused.output
    assert project.rename("production-eu").code == 0
    assert changes(project.preview()) == Counter()

    project.set(createUserPool=None, **{key: BY_TOKEN[key] for key in ("jwtIssuer", "jwtAudience")})
    refused = project.preview()
    assert refused.code != 0, "everybody's account would go with the pool"
    project.set(jwtIssuer=None, jwtAudience=None, **KEPT)

    project.set(disposable=True)
    freed = {**KEPT, "disposable": True}
    outcome = project.up()
    assert changes(outcome) == expected(before, declared(project.stack, freed)), outcome
    there = expected(Graph(), declared(project.stack, freed))["create"] + 1
    assert changes(project.destroy(previewed=True)) == Counter(delete=there)


def yaml_life(project: EngineProject, folder: Path) -> None:
    """Of the component in a program of another language."""
    first = project.up()
    assert set(changes(first)) == {"create"}
    with connect(project.outputs()["url"], open_timeout=PATIENCE_SECONDS, ping_interval=None) as connection:
        assert ask(connection, action="progress", docId="unknown")["status"] == "pending"
    assert changes(project.up()) == Counter()
    assert changes(project.destroy(previewed=True)) == Counter(delete=first.counts["create"])


def killed_life(project: EngineProject, folder: Path) -> None:
    """Of a stack whose first `up` was killed when AWS had a function that the engine had not noted yet."""
    session: Any = boto3.Session(*CREDENTIALS.values(), region_name=REGION)
    functions = session.client("lambda", endpoint_url=project.emulator.endpoint_url)

    def there() -> bool:
        return bool(functions.list_functions()["Functions"])

    project.up_until_killed("aws:lambda:Function", there)
    functions.close()
    assert project.run("cancel", "--yes").code == 0, "the lock of the one that was killed"
    outcome = project.up()
    assert outcome.code == 0, str(outcome)
    with connect(project.outputs()["url"], open_timeout=PATIENCE_SECONDS, ping_interval=None) as connection:
        assert ask(connection, action="progress", docId="unknown")["status"] == "pending"
    assert changes(project.up()) == Counter()


def roles_life(project: EngineProject, folder: Path) -> None:
    """Of the roles that deploy the others, in a program of another language."""
    first = project.up()
    assert set(changes(first)) == {"create"}
    assert set(project.outputs()) == {"previewRoleArn", "deployRoleArn"}
    assert changes(project.up()) == Counter()
    # The provider for GitHub's tokens stays in the account.
    assert changes(project.destroy(previewed=True)) == Counter(delete=first.counts["create"])


# The emulator does not know these by name, or knows them by another one; AWS does.
UNPLACED = [
    *("cloudfront:*", "cloudwatch:DeleteAlarms", "cloudwatch:DeleteDashboards", "cloudwatch:GetDashboard"),
    *("cloudwatch:ListTagsForResource", "cloudwatch:PutDashboard", "dynamodb:ListTagsOfResource"),
    *("events:ListTagsForResource", "events:ListTargetsByRule", "events:PutTargets", "events:RemoveTargets"),
    *("kms:DescribeKey", "lambda:CreateFunction", "lambda:ListEventSourceMappings", "route53:GetChange"),
    "sns:ListTagsForResource",
]


def session_with(emulator: Emulator, name: str, *parts: str) -> dict[str, str]:
    """The environment of a role that has these parts of docs/deploy-role.json and, but for UNPLACED, nothing else."""
    text = (ROOT / "docs" / "deploy-role.json").read_text()
    for word, value in (("PARTITION", "aws"), ("ACCOUNT", "0" * 12), ("REGION", REGION), ("PROJECT", "docprogress")):
        text = text.replace(word, value)
    documents = json.loads(text)
    granted = {action for part in parts for each in documents[part]["Statement"] for action in each["Action"]}
    unplaced = [each for each in UNPLACED if each.endswith("*") or each in granted | {"lambda:ListEventSourceMappings"}]
    policies = {part: documents[part] for part in parts}
    policies["unplaced"] = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": unplaced, "Resource": "*"}],
    }
    session: Any = boto3.Session(*CREDENTIALS.values(), region_name=REGION)
    iam, sts = (session.client(each, endpoint_url=emulator.endpoint_url) for each in ("iam", "sts"))
    anyone = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [anyone]})
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    for part, document in policies.items():
        iam.put_role_policy(RoleName=name, PolicyName=part, PolicyDocument=json.dumps(document))
    made = sts.assume_role(RoleArn=role, RoleSessionName="life")["Credentials"]
    iam.close()
    sts.close()
    return {
        "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
        "AWS_SESSION_TOKEN": made["SessionToken"],
    }


def deployer_life(project: EngineProject, folder: Path) -> None:
    """Of a stack with every part, by roles that have the rights of docs/deploy-role.json."""
    reader = session_with(project.emulator, "preview", "preview")
    deployer = session_with(project.emulator, "deploy", "preview", "deploy")
    project.set(**EVERYTHING, certificateArn=CERTIFICATE)
    project.act_as(reader)
    assert project.preview().code == 0
    refused = project.up()
    assert refused.code != 0, "who previews creates nothing"
    assert "is not authorized to perform" in refused.output, str(refused)
    project.act_as(deployer)
    assert changes(project.up())
    project.act_as(reader)
    for command in (("preview", "--refresh"), ("refresh", "--yes", "--skip-preview")):
        looked = project.run(*command)
        assert looked.code == 0, str(looked)
    project.act_as(deployer)
    assert set(changes(project.destroy())) == {"delete"}


@dataclass(frozen=True)
class Life:
    live: Callable[[EngineProject, Path], None]
    stack: str
    program: str = "."


LIVES = {  # the longest first
    "dev": Life(disposable_life, "dev"),
    "deployer": Life(deployer_life, "dev"),
    "kept": Life(kept_life, "production-eu"),
    "local": Life(disposable_life, "local"),
    "yaml": Life(yaml_life, "dev", "examples/yaml"),
    "roles": Life(roles_life, "dev", "examples/deploy-role"),
    "killed": Life(killed_life, "dev", "examples/yaml"),
}


@pytest.fixture(scope="module")
def lives(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """All that are asked for, four at a time: the others end before the longest, and leave it more of the machine."""
    asked = [each.callspec.params["life"] for each in request.session.items if hasattr(each, "callspec")]

    def live(life: Life, folder: Path) -> None:
        with Emulator() as emulator:
            life.live(EngineProject(folder, emulator, stack=life.stack, program=life.program), folder)

    with ThreadPoolExecutor(4) as pool, contextlib.ExitStack() as cleanup:
        futures = {name: pool.submit(live, LIVES[name], tmp_path_factory.mktemp(name)) for name in asked}
        for future in futures.values():
            cleanup.callback(future.cancel)
        yield futures


@pytest.mark.parametrize("life", LIVES)
def test_each_change_of_a_stacks_life_does_what_it_must_and_no_more(lives: dict[str, Future[None]], life: str) -> None:
    lives[life].result()
