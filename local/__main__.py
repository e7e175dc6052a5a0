"""`python -m local up`, `demo`, `emulator`, `logs`, `doctor` and `load`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local import doctor, load
from local.emulator import CREDENTIALS, NO_PROFILE, REGION, Emulator, EmulatorError
from local.engine import DeployError, ResourceCreated
from local.running import told
from local.signals import ended_by_signals
from local.stack import LocalStack, local_stack

if TYPE_CHECKING:
    from local.reload import Reload

_IMPORTED_AT = time.monotonic()
_ROOT = Path(__file__).resolve().parent.parent
_POLL_SECONDS = 0.2
_PACKAGES = ("boto3", "ministack", "pulumi", "pulumi_aws", "pypdf", "rich", "websockets", "yaml")
DEFAULT_PORT = 4566  # where AWS emulators are expected


def main() -> int:
    arguments = _parser().parse_args()
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        hint = "`make up` and `make demo` install what they need"
        print(f"error: missing Python packages: {', '.join(missing)}; {hint}", file=sys.stderr)
        return 1
    if arguments.command == "doctor":  # which may look at AWS, with the credentials of the one who asks
        from local.doctor.command import doctor as examine

        return examine(arguments)
    if arguments.command == "logs":
        from local.logs import logs

        try:
            return logs(arguments)
        except KeyboardInterrupt:
            return 0
    if arguments.command == "load" and (arguments.stack or arguments.outputs):  # the same
        from local.load.command import load as load_stack

        return load_stack(arguments)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(NO_PROFILE)
    if os.environ.get("DOCPROGRESS_END_WITH_PARENT"):
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        with ended_by_signals():
            if arguments.command == "up":
                return up(arguments.port, dict(arguments.config), watch=arguments.watch)
            if arguments.command == "emulator":
                return emulator(arguments.port)
            if arguments.command == "load":
                from local.load.command import load as load_stack

                return load_stack(arguments)
            from local.demo import demo  # rich and websockets, which `up` can do without

            by_make = bool(os.environ.get("DOCPROGRESS_BY_MAKE"))
            return demo(arguments.files, started_at=process_started_at(), with_page=arguments.page, by_make=by_make)
    except KeyboardInterrupt:
        return 130
    except (EmulatorError, DeployError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def up(port: int, config: dict[str, str], *, watch: bool = False) -> int:
    """Keeps the stack running until SIGINT or SIGTERM; prints its outputs as one line of JSON when it is ready.

    Args:
        watch: take changed files up meanwhile.
    """

    def tell(created: ResourceCreated) -> None:
        print(f"{created.number:3} {created.type} {created.name}", file=sys.stderr)

    with (
        local_stack(port=port, config=config, log=sys.stderr, on_created=tell) as stack,
        contextlib.suppress(KeyboardInterrupt),
        _page_of(stack, port) as page,
        contextlib.ExitStack() as cleanup,
    ):
        cleanup.enter_context(told({**stack.outputs, **page, **_access(stack.emulator)}))
        _tell_access(stack.emulator, **stack.outputs, **page)
        reload = _reload(stack, config) if watch else None
        while True:
            stack.emulator.check(within=_POLL_SECONDS if reload else 3600)
            if reload:
                reload.look()
    return 0


def _reload(stack: LocalStack, config: dict[str, str]) -> Reload:
    # Half a second of imports, which nobody should wait for who only wants the stack.
    import boto3

    from local.project import read_project
    from local.reload import Reload

    kinds = json.loads(read_project(_ROOT, "local", config).config["docprogress:documentKinds"])
    session: Any = boto3.Session(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
    functions = session.client("lambda", endpoint_url=stack.emulator.endpoint_url, region_name=REGION)
    return Reload(functions, kinds, lambda line: print(line, file=sys.stderr, flush=True))


def emulator(port: int) -> int:
    """Keeps the emulator running, with nothing on it, until SIGINT or SIGTERM: for `pulumi up --stack local`."""
    with Emulator(port, log=sys.stderr) as running:
        _tell_access(running)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                running.check(within=3600)
    return 0


def _tell_access(running: Emulator, **outputs: object) -> None:
    """One line of JSON for programs, and one for the shell."""
    print(json.dumps({**outputs, **_access(running)}), flush=True)
    if "pageUrl" in outputs:
        print(f"the page: {outputs['pageUrl']}", file=sys.stderr)
    variables = {"AWS_ENDPOINT_URL": running.endpoint_url, "AWS_DEFAULT_REGION": REGION, **CREDENTIALS}
    exports = " ".join(f"{name}={value}" for name, value in variables.items())
    print(f"ready in {time.monotonic() - process_started_at():.1f} s; Ctrl-C ends it", file=sys.stderr)
    print(f"for Pulumi, the AWS CLI and boto3: export {exports}", file=sys.stderr, flush=True)


def _access(running: Emulator) -> dict[str, str]:
    return {
        "awsEndpointUrl": running.endpoint_url,
        "awsAccessKeyId": CREDENTIALS["AWS_ACCESS_KEY_ID"],
        "awsSecretAccessKey": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    }


@contextlib.contextmanager
def _page_of(stack: LocalStack, port: int) -> Iterator[dict[str, str]]:
    """Serves the page in the block, if the stack has a bucket to upload to, and gives its `pageUrl`.

    Its port is the one after the emulator's, so that a tab of the last run finds it again; any other if that is busy.
    """
    if "documentsBucket" not in stack.outputs:
        yield {}
        return
    from local.page import page_of  # boto3, which nobody should wait for who only wants the stack

    try:
        server = page_of(stack, port + 1 if 0 < port < 65535 else 0)
    except OSError:
        server = page_of(stack)
    with server as page:
        yield {"pageUrl": page.url}


def process_started_at() -> float:
    """When this process began, on the `time.monotonic()` clock: before the interpreter was up, where Linux tells."""
    try:
        # Field 22 of proc_pid_stat(5), counted after the command name, which may hold spaces.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return _IMPORTED_AT
    return time.monotonic() - age


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local", description="docprogress on an AWS emulator")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("up", help="keep the stack running and print its outputs as one line of JSON")
    serve.add_argument("--port", type=_port, default=DEFAULT_PORT, help="default: %(default)s; 0 takes a free one")
    serve.add_argument(
        "-c", dest="config", type=_setting, action="append", default=[], metavar="KEY=VALUE", help="as for pulumi up"
    )
    serve.add_argument("--watch", action="store_true", help="take changed handlers, library files and pages up")
    alone = commands.add_parser("emulator", help="keep the emulator running alone, for `pulumi up --stack local`")
    alone.add_argument("--port", type=_port, default=DEFAULT_PORT, help="default: %(default)s; 0 takes a free one")
    show = commands.add_parser("demo", help="watch PDF files being processed, then take everything down")
    show.add_argument("--page", action="store_true", help="serve the web page too, until Ctrl-C")
    show.add_argument("files", nargs="*", type=Path, metavar="FILE.pdf", help="default: a sample is made")
    follow = commands.add_parser("logs", help="follow what all functions of a stack say, here or on AWS")
    which = follow.add_mutually_exclusive_group()
    which.add_argument("--stack", metavar="NAME", help="as Pulumi knows it, with your AWS credentials")
    which.add_argument("--outputs", type=Path, metavar="FILE", help="the JSON that `make up` prints; - for stdin")
    follow.add_argument("--document", metavar="ID", help="of this document alone")
    follow.add_argument("--minutes", type=int, default=10, help="begin so long ago; default: %(default)s")
    said = "say what is wrong with a stack, here or on AWS, and what cures it"
    doctor.add_arguments(commands.add_parser("doctor", help=said))
    said = "let many pages watch a document of a stack, and say how they heard of it"
    load.add_arguments(commands.add_parser("load", help=said))
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give 0 to 65535")
    return int(text)


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    if key.startswith("aws:"):
        raise argparse.ArgumentTypeError(f"{key} cannot be set: the local stack is always in {REGION}, on the emulator")
    return key, value


if __name__ == "__main__":
    sys.exit(main())
