"""`python -m local load`: many pages watch one document of a stack, and a report says how they heard of it.

It makes connections and one document of its own, in a stack that is there, or in a local one of its own.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

# Four updates a second to so many are 8,000 of the 10,000 requests a second that an account has in a region, for all of
# its APIs: https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
MOST_WATCHERS = 2_000
MOST_UPDATES = 1_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Here, so that the other commands do not wait for what the load imports."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--stack", metavar="NAME", help="as Pulumi knows it, with your AWS credentials")
    which.add_argument("--outputs", type=Path, metavar="FILE", help="the JSON that `make up` prints; - for stdin")
    parser.add_argument(
        "--watchers", type=_up_to(MOST_WATCHERS), default=200, help=f"1 to {MOST_WATCHERS:,}; default: %(default)s"
    )
    parser.add_argument(
        "--updates", type=_up_to(MOST_UPDATES), default=40, help=f"1 to {MOST_UPDATES:,}; default: %(default)s"
    )
    parser.add_argument("--token", default="", help="what the pages connect with, where a token is asked for")
    parser.add_argument("--yes", action="store_true", help="load a protected stack too")
    parser.add_argument("--json", action="store_true", help="the report as one line of JSON")


def _up_to(most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is none of 1 to {most:,}")
        return int(text)

    return number
