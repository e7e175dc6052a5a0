"""What a sandbox of Lambda does once: it makes what its calls need, and says that it has started."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

from aws_lambda_powertools import Logger


def started(logger: Logger, prepare: Callable[[], object]) -> None:
    """Called once, at the end of a function's module.

    Args:
        prepare: makes what the first call would make, such as clients. It connects to nothing: with SnapStart, every
            sandbox is a copy of the one that has called it. Called in Lambda alone, where it is ahead of the calls or,
            on demand, has a whole processor until the module is imported; a call with 512 MB has 0.29 of one.
    """
    # https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    initialization = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE")
    if initialization:
        prepare()
    if initialization != "snap-start":
        _say(logger)
        return
    from snapshot_restore_py import register_after_restore  # Lambda's own Python has it

    register_after_restore(_restored, logger)


def _restored(logger: Logger) -> None:
    import ssl  # as far as it is imported at all, it is part of the snapshot

    # The system's generator is Lambda's to renew; these two were copied. UUIDs and our waiting times are the system's.
    random.seed()
    ssl.RAND_add(os.urandom(32), 32)
    _say(logger)


def _say(logger: Logger) -> None:
    # Lambda itself says so only in lines that it writes for each call.
    logger.info("Cold start")
