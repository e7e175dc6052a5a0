"""Runs MiniStack, an AWS emulator in pure Python, as a child process with IAM enforced.

Decides where it listens, what it inherits and how it ends. What stands on it is `local.engine`'s business.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

REGION = "us-east-1"
# The emulator's root user, another in each run: a key that everyone knows would let every page and every user of this
# machine in. Functions get session credentials of their own roles instead.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": f"AKIA{secrets.token_hex(8).upper()}",
    "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30),
}
# Nobody's AWS profile may have a say in what runs here: a default profile alone can redirect a client.
NO_PROFILE = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
_HOST = "127.0.0.1"
_READY_SECONDS = 60.0
_STOP_SECONDS = 3.0
_LOG_LINES_SHOWN = 15


class EmulatorError(Exception):
    """The emulator could not be started, or it ended by itself. The message is meant for people."""


class Emulator:
    """An AWS emulator on 127.0.0.1 for as long as the block runs.

        with Emulator() as emulator:
            boto3.Session(*CREDENTIALS.values(), region_name=REGION).client("s3", endpoint_url=emulator.endpoint_url)

    Its socket is bound here and inherited, so a busy port is known at once, and a request made before the emulator
    is ready waits instead of being refused.

    Args:
        port: The port to listen on; 0 takes a free one.
        actions: A file to which each IAM action that the root user's requests need is written, with its resource, as a
            line of JSON.
        log: A file with a descriptor that receives what the emulator and its functions write. None keeps it for
            error messages only.

    Raises:
        EmulatorError: From `start()` when the port is busy, from `wait_until_ready()` when the child ends or is
            not ready within 60 s.
    """

    def __init__(self, port: int = 0, *, log: IO[str] | None = None, actions: Path | None = None) -> None:
        self.port = port
        self._actions = actions
        self._output = log
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None
        self._directory: Path | None = None
        self._log: IO[bytes] | None = None

    @property
    def endpoint_url(self) -> str:
        return f"http://{_HOST}:{self.port}"

    def start(self) -> None:
        """Starts the child process and returns before it is ready."""
        with _listener(self.port) as listener:
            self.port = listener.getsockname()[1]
            self._directory = Path(tempfile.mkdtemp(prefix="docprogress-emulator-"))
            if self._output is None:
                # Unlinked at once and read back through this handle: no log file outlives the process.
                self._log = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - closed by stop()
            output = self._log if self._output is None else self._output
            read_end, self._lifeline = os.pipe()
            try:
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-I",  # the environment's PYTHON* variables and this folder must not reach any Lambda
                        str(Path(__file__).with_name("emulator_process.py")),
                        str(listener.fileno()),
                        str(read_end),
                        *([str(self._actions)] if self._actions else []),
                    ],
                    env=_environment(self.port, self._directory),
                    cwd=self._directory,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(listener.fileno(), read_end),
                    start_new_session=True,  # Ctrl-C in the terminal is for the parent, which then stops this group
                )
            except BaseException:
                self.stop()
                raise
            finally:
                os.close(read_end)

    def wait_until_ready(self) -> None:
        """Returns when the emulator answers."""
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            self.check()
            if self._answers():
                return
            if time.monotonic() > deadline:
                raise EmulatorError(f"the AWS emulator did not answer within {_READY_SECONDS:.0f} s{self._tail()}")

    def check(self, *, within: float = 0.0) -> None:
        """Raises `EmulatorError` when the emulator has ended by itself, or does so `within` that many seconds."""
        if self._process is None:
            raise EmulatorError("the AWS emulator is not started")
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(within)
            raise EmulatorError(f"the AWS emulator ended by itself with exit code {code}{self._tail()}")

    def log(self) -> str:
        """What the emulator and its functions have written so far; empty when it goes elsewhere."""
        if self._log is None:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        # pread leaves alone the file offset, which the child shares and writes at.
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def stop(self) -> None:
        """Ends the emulator, its Lambda workers and their temporary files; a second call does nothing."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        if self._process is not None:
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                # Still unreaped, so the group's id cannot belong to anybody else.
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answers(self) -> bool:
        # The socket listens already: the request waits in its backlog until the server takes it.
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=1)
        try:
            connection.request("GET", "/_ministack/health")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)  # the child died or is being replaced: check() tells
            return False
        finally:
            connection.close()

    def _tail(self) -> str:
        lines = self.log().splitlines()[-_LOG_LINES_SHOWN:]
        return ":\n" + "\n".join(f"  {line}" for line in lines) if lines else ""


def _listener(port: int) -> socket.socket:
    listener = socket.socket()
    with contextlib.ExitStack() as closing:
        closing.callback(listener.close)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
            listener.listen(1024)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise EmulatorError(
                    f"port {port} on {_HOST} is busy; choose another with --port N, or a free one with --port 0"
                ) from None
            raise EmulatorError(f"cannot listen on {_HOST}:{port}: {error.strerror}") from None
        closing.pop_all()
    return listener


def _environment(port: int, directory: Path) -> dict[str, str]:
    # MiniStack hands its whole environment to every Lambda, so only what either needs goes in.
    inherited = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "SSL_CERT_FILE") if name in os.environ
    }
    return inherited | CREDENTIALS | NO_PROFILE | {
        "AUTH": "true",
        "GATEWAY_PORT": str(port),
        "MINISTACK_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "TMPDIR": str(directory),
        # Else the key of user pools stays behind in a folder that all emulators of the machine share.
        "STATE_DIR": str(directory / "state"),
        "LOG_LEVEL": "INFO",
        # Listeners on fixed ports of their own: a second emulator on this machine would fail to take them.
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        # A Docker daemon is neither needed nor to be touched: its labelled containers may be somebody else's.
        "DOCKER_HOST": f"unix://{directory}/no-docker.sock",
    }  # fmt: skip
