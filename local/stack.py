"""The whole local stack, brought up and taken down as one thing: the emulator with the program deployed on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from local.emulator import Emulator
from local.engine import DeployError, Deployment, ResourceCreated


@dataclass(frozen=True)
class LocalStack:
    """A running stack.

    Attributes:
        outputs: The program's stack outputs; its URLs work from this machine.
    """

    emulator: Emulator
    outputs: Mapping[str, Any]


@contextlib.contextmanager
def local_stack(
    *,
    port: int = 0,
    config: Mapping[str, str] | None = None,
    log: IO[str] | None = None,
    on_created: Callable[[ResourceCreated], None] = lambda _: None,
    on_log: Callable[[str], None] | None = None,
    meanwhile: Callable[[str], None] = lambda _: None,
) -> Iterator[LocalStack]:
    """The stack for as long as the block runs.

    Args:
        port, log: As for `Emulator`.
        config, on_created, on_log: As for `Deployment`.
        meanwhile: Called with the emulator's URL while the emulator starts and the engine imports, which takes
            half a second: for whatever the caller has to prepare.

    Raises:
        EmulatorError, DeployError: Each with one message for people.
    """
    emulator = Emulator(port, log=log)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(emulator.stop)
        emulator.start()
        deployment = cleanup.enter_context(
            Deployment(emulator.endpoint_url, config=config, on_created=on_created, on_log=on_log)
        )
        meanwhile(emulator.endpoint_url)
        emulator.wait_until_ready()
        try:
            outputs = deployment.wait()
        except DeployError:
            emulator.check()  # an emulator that ended is the better explanation
            raise
        yield LocalStack(emulator, outputs)
