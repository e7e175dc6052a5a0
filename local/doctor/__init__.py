"""`python -m local doctor`: looks a stack over, on the emulator or on AWS, and says what is wrong and what cures it.

It changes nothing, but for a connection of its own, unless it is told to end or to retry a document.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Here, so that the other commands do not wait for what the doctor imports."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--stack", metavar="NAME", help="as Pulumi knows it, with your AWS credentials")
    which.add_argument("--outputs", type=Path, metavar="FILE", help="the JSON that `make up` prints; - for stdin")
    parser.add_argument("--token", default="", help="what a page would connect with, where a token is asked for")
    parser.add_argument("--document", metavar="ID", help="look at this document instead")
    parser.add_argument("--end", action="store_true", help="end the document, and tell its watchers")
    parser.add_argument("--retry", action="store_true", help="put the document into its bucket again")
    parser.add_argument("--json", action="store_true", help="a list of findings")
