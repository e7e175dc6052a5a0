"""Every command of the pages does what its page says, in the page's order.

They run in a folder like a checkout, against the local stack. Not proved here: what `pulumi up` and its like do, which
tests/engine runs on the real engine, and what the verbs in conftest's DRY do.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.doctor.command import examine, patient_of
from local.emulator import REGION
from local.project import read_project
from tests.docs.conftest import STAND_INS, Shell, forget
from tests.docs.pages import PAGES, ROOT, Block, blocks
from tests.docs.stand_ins.pulumi import OPTIONS
from tests.examples.workers import TRUST
from tests.local.conftest import DeployedStack
from tests.local.scenarios import eventually, put_silent_document, status, upload
from tests.mock_engine import run_main
from tests.npm_packages import WSCAT, installed, skip_or_fail

pytestmark = pytest.mark.emulator

# By how it begins: why a command does not run here.
ELSEWHERE = {
    "gh attestation verify": "it asks GitHub for a release",
    "python -m tools.": "they write into the tree; tests/tools compares what they would write",
    "python -m benchmarks": "minutes; tests/benchmarks runs it small",
    "npm install\n": "tests/examples/test_worker_node.py runs the worker, with its packages",
    "docker build": "tests/examples/test_python_workers.py runs the image's command",
    "aws lambda invoke": "tests/examples/test_python.py invokes the function of that program",
}
# What a reader puts in: a whole word, or the dots in an address.
PLACEHOLDERS = {
    r"\bKEY VALUE\b": "dashboard false",
    r"\bNEW\b": "staging",
    r"\bOLD\b": "prod",
    r"\bSUB\b": "alice",
    r"\bURN\b": "urn:pulumi:dev::docprogress::aws:apigatewayv2/deployment:Deployment::api-deployment",
    r"\bAWS_REGION=eu-west-1\b": f"AWS_REGION={REGION}",
    r"=…": "=made-up",
    # A verb alone, in a sentence, is a name.
    r"^make ([a-z]+)$": r"make -n \1",
}


def commands(page: str) -> list[Block]:
    game_day = {command for command, _ in GAME_DAY} if page == OPERATIONS else set()
    return [each for each in blocks(page) if each.language in ("sh", "command") and each.text not in game_day]


OPERATIONS = "docs/operations.md"
_GAME_DAY = (ROOT / OPERATIONS).read_text().partition("## A game day")[2].partition("\n## ")[0]
GAME_DAY = re.findall(r"^\| `(aws [^`]+)`.*\| `([^`]+)` \|$", _GAME_DAY, re.MULTILINE)
WITH_COMMANDS = [page for page in PAGES if commands(page)]


def filled(script: str, stack: DeployedStack) -> str:
    bucket, table = stack.outputs["documentsBucket"], stack.outputs["tableName"]
    for placeholder, value in {**PLACEHOLDERS, r"s3://…": f"s3://{bucket}", r"\bTABLE\b": table}.items():
        script = re.sub(placeholder, value, script)
    return script


# What must be there before a page's commands


def with_a_running_document(stack: DeployedStack, shell: Shell) -> None:
    shell.run("pulumi stack select prod && pulumi config set authorization AWS_IAM")
    forget(stack, "invoice-7")
    upload(stack, "invoice-7", (shell.folder / "report.pdf").read_bytes())
    assert eventually(lambda: status(stack, "invoice-7") == "processing_complete")
    put_silent_document(stack, "invoice-7", updated_at=int(time.time() * 1000))


def with_a_role(stack: DeployedStack, shell: Shell) -> None:
    stack.client("iam").create_role(RoleName="worker", AssumeRolePolicyDocument=TRUST)


def with_a_target(stack: DeployedStack, shell: Shell) -> None:
    # The stack that the pages share has API Gateway's own names.
    outputs = {**stack.outputs, "domainTarget": "d-1234567890.execute-api.us-east-1.amazonaws.com"}
    Path(shell.environment["DOCS_OUTPUTS"]).write_text(json.dumps(outputs))


BEFORE: dict[str, Callable[[DeployedStack, Shell], None]] = {
    OPERATIONS: with_a_running_document,
    "docs/domain-names.md": with_a_target,
    "examples/worker-container/README.md": with_a_role,
}


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page_run_in_its_order(page: str, stack: DeployedStack, shell: Shell) -> None:
    BEFORE.get(page, lambda *_: None)(stack, shell)
    within = str(Path(page).parent) if page.startswith("examples/") else "."
    ran = ""
    for block in commands(page):
        if block.language == "command" and block.text in ran:
            continue  # a sentence names it again
        ran += f"{block.text}\n"
        script = filled(block.text, stack)
        if any(script.startswith(beginning) for beginning in ELSEWHERE):
            continue
        if "jq " in script and shutil.which("jq") is None:
            skip_or_fail("no jq: install it as your system does")
        if "npx wscat" in script:
            shell.environment["DOCS_WSCAT"] = str(installed(WSCAT) / "wscat" / "bin" / "wscat")
        shell.run(script, within=within)
    plan_what_was_set(shell)


def plan_what_was_set(shell: Shell) -> None:
    """The program takes the settings that a page's commands have made."""
    for file in shell.folder.glob("Pulumi.*.yaml"):
        if not (ROOT / file.name).exists() or file.read_text() != (ROOT / file.name).read_text():
            stack = file.name.split(".")[1]
            run_main(stack, read_project(shell.folder, stack, {}).config)
    made_up = shell.folder / "made-up"
    for line in made_up.read_text().splitlines() if made_up.exists() else []:
        settings = dict(each.split("=", 1) for each in re.findall(r"-c (\S+=\S+)", line))
        if settings:
            run_main("local", settings)


def test_every_reason_belongs_to_a_command() -> None:
    texts = [each.text for page in PAGES for each in commands(page)]
    unused = [each for each in ELSEWHERE if not any(text.startswith(each) for text in texts)]
    assert unused == [], "the command is gone: take its reason out"


# The game day: each fault is played, seen by the doctor as the page says, and mended


@pytest.fixture
def mended(stack: DeployedStack) -> Iterator[None]:
    """Puts back what the game day breaks."""
    lambdas, api, iam, logs = (stack.client(each) for each in ("lambda", "apigatewayv2", "iam", "logs"))
    stage = {"ApiId": stack.outputs["apiId"], "StageName": stack.outputs["stageName"]}
    settings = api.get_stage(**stage)["DefaultRouteSettings"]
    function = stack.outputs["functionNames"]["documents-processor"]
    role = lambdas.get_function_configuration(FunctionName=function)["Role"].rpartition("/")[2]
    policies = {
        name: json.dumps(iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"])
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
    }
    groups = {each["logGroupName"] for each in logs.describe_log_groups()["logGroups"]}
    yield
    lambdas.delete_function_concurrency(FunctionName=stack.outputs["connectionHandlerName"])
    events = stack.client("events")
    for rule in events.list_rules()["Rules"]:
        events.enable_rule(Name=rule["Name"])
    for name, document in policies.items():
        iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=document)
    api.update_stage(**stage, DefaultRouteSettings=settings)
    for group in groups - {each["logGroupName"] for each in logs.describe_log_groups()["logGroups"]}:
        logs.create_log_group(logGroupName=group)


def test_the_game_day_has_its_five_faults() -> None:
    assert len(GAME_DAY) == 5


@pytest.mark.usefixtures("mended")
@pytest.mark.parametrize(("breaks", "says"), GAME_DAY, ids=[" ".join(row[0].split()[:3]) for row in GAME_DAY])
def test_the_doctor_says_of_a_game_days_fault_what_the_page_says(
    breaks: str, says: str, shell: Shell, outputs: dict[str, Any]
) -> None:
    names = [each.text for each in blocks(OPERATIONS) if each.text.startswith("ROLE=")]
    shell.run(f"make up > up.json\n{''.join(names) if '$ROLE' in breaks else ''}{breaks}")
    found = [f"{each.check}: {each.detail}" for each in examine(patient_of(outputs))]
    expected = re.compile(re.escape(says).replace("…", ".*"))
    assert any(expected.search(each) or says.replace(" it may ", " it may not ") in each for each in found), found


# The stand-ins themselves


@pytest.mark.skipif(shutil.which("pulumi") is None, reason="there is no pulumi on the PATH")
@pytest.mark.parametrize("command", OPTIONS)
def test_the_stand_in_for_pulumi_has_no_option_that_the_cli_has_not(command: str) -> None:
    shown = subprocess.run(["pulumi", *command.split(), "--help"], capture_output=True, text=True, check=True).stdout
    assert {option for option in OPTIONS[command] if option not in shown} == set()


@pytest.mark.skipif(shutil.which("pulumi") is None, reason="there is no pulumi on the PATH")
def test_the_stand_in_for_pulumi_keeps_settings_as_the_cli_does(tmp_path: Path) -> None:
    script = """
        pulumi stack init prod
        pulumi config set apiThrottleRate 1000
        pulumi config set docprogress:disposable true
        pulumi config set aws:region eu-central-1
        pulumi config set --path 'docprogress:allowedOrigins[0]' https://app.example.com
        pulumi config set --path 'allowedOrigins[1]' https://other.example.com
        pulumi config set --path 'alarmThresholds[0]' latency=5000
        pulumi config set loggingLevel ERROR --stack prod
        pulumi config rm disposable
    """
    kept = []
    for name in ("cli", "stand-in"):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(ROOT / "Pulumi.yaml", folder)
        environment = {
            "PATH": f"{Path(shutil.which('pulumi') or '').parent}:/usr/bin:/bin",
            "HOME": str(folder),
            "PULUMI_BACKEND_URL": f"file://{folder}",
            "PULUMI_CONFIG_PASSPHRASE": "of no use to anyone",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        if name == "stand-in":
            command = shlex.join([sys.executable, str(STAND_INS / "pulumi.py")])
            script = script.replace("pulumi ", f"{command} ")
        subprocess.run(["bash", "-euc", script], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        kept.append(yaml.safe_load((folder / "Pulumi.prod.yaml").read_text())["config"])
    assert kept[0] == kept[1]
