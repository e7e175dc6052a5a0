"""Offers the components to Pulumi programs in any language: `pulumi package add PATH/plugin`.

schema.json says what they take and give. It is written by `pulumi package get-schema ./plugin`.
"""

import os
import sys
import tomllib
from pathlib import Path

from pulumi.provider.experimental import component_provider_host

PLUGIN = Path(__file__).resolve().parent
# Before any other `infra`, such as one of the program that uses this.
sys.path.insert(0, str(PLUGIN.parent))

from infra.deploy_role import DeployRole  # noqa: E402 - found by the line above
from infra.document_pipeline import DocumentPipeline  # noqa: E402
from infra.document_progress import DocumentProgress  # noqa: E402
from infra.websocket_api import WebSocketApi  # noqa: E402

COMPONENTS = [DocumentProgress, WebSocketApi, DocumentPipeline, DeployRole]
VERSION = tomllib.loads((PLUGIN.parent / "pyproject.toml").read_text())["project"]["version"]

if __name__ == "__main__":
    # A path that is relative to here would mean nothing to the engine, which may stand anywhere.
    os.chdir(PLUGIN)
    component_provider_host(COMPONENTS, "docprogress", version=VERSION)
