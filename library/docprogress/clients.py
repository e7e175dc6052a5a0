"""Makes clients of AWS's services by botocore alone: boto3, of whose additions nothing here has any use, and botocore's
way to read its data are a sixth of a cold start. A session that a worker brings is boto3's, and makes its own clients.
"""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

from docprogress.process import importing

if TYPE_CHECKING:
    import boto3
    from botocore.config import Config
    from botocore.loaders import JSONFileLoader
    from botocore.session import Session


def new_session(region: str | None = None) -> Session:
    """None: the region is where boto3 looks for it."""
    with importing:
        from botocore.session import Session

        session = Session()
    if region:
        session.set_config_variable("region", region)
    loader = session.get_component("data_loader")
    loader.file_loader = InDicts(loader.file_loader)
    return session


def client(service: str, session: boto3.Session | Session, config: Config | None = None) -> Any:
    """What `boto3.client` makes, but for the uploads and downloads of files that boto3 adds for S3."""
    with importing:  # botocore imports more of itself while it makes a client
        from botocore.session import Session

        create: Any = session.create_client if isinstance(session, Session) else session.client
        return create(service, config=config)


class InDicts:
    """Reads botocore's data, megabytes of JSON, into dicts. They keep their order as the OrderedDicts do that botocore
    makes, which take twice the time.
    """

    def __init__(self, original: JSONFileLoader) -> None:
        self.exists = original.exists
        self._original = original

    def load_file(self, path_without_suffix: str) -> Any:
        for suffix, open_file in ((".json", open), (".json.gz", gzip.open)):
            try:
                with open_file(path_without_suffix + suffix, "rb") as file:
                    return json.load(file)
            except FileNotFoundError:
                continue
        return self._original.load_file(path_without_suffix)
