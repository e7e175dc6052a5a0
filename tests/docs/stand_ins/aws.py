"""The AWS CLI as far as the pages use it: its commands are made of botocore's own models, and so are its refusals.

    aws lambda get-function-configuration --function-name NAME --query Role --output text
    aws s3 cp FILE s3://BUCKET/KEY --metadata name=value

With no option at all it only looks whether there is such a command, since a sentence names it without.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import botocore.session
import jmespath
from botocore.model import Shape

OF_THE_CLI = ("query", "output", "region", "profile", "cli-binary-format")


def main(service: str, operation: str, *words: str) -> None:
    client = botocore.session.get_session().create_client(service)
    if (service, operation) == ("s3", "cp"):
        source, target, *rest = words
        metadata = _pairs(_options(rest).get("metadata", [""])[0])
        bucket, _, key = target.removeprefix("s3://").partition("/")
        client.put_object(Bucket=bucket, Key=key, Body=Path(source).read_bytes(), Metadata=metadata)
        print(f"upload: {source} to {target}")
        return
    names = {_dashed(name): name for name in client.meta.service_model.operation_names}
    if operation not in names:
        sys.exit(f"aws: {service} has no command {operation}")
    method = operation.replace("-", "_")
    if not words:
        return
    shape = client.meta.service_model.operation_model(names[operation]).input_shape
    members = {_dashed(name): (name, each) for name, each in shape.members.items()}
    options = _options(words)
    own = {name: options.pop(name)[0] for name in OF_THE_CLI if name in options}
    if unknown := options.keys() - members.keys():
        sys.exit(f"aws: {service} {operation} has no option {', '.join(sorted(unknown))}")
    found = getattr(client, method)(**{members[each][0]: _value(members[each][1], options[each]) for each in options})
    found.pop("ResponseMetadata")
    answer = jmespath.search(own["query"], found) if "query" in own else found
    print(_text(answer) if own.get("output") == "text" else json.dumps(answer, indent=4, default=str))


def _dashed(name: str) -> str:
    return botocore.xform_name(name, "-")


def _options(words: Any) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            options[word.removeprefix("--")] = last = []
        else:
            last.append(word)
    return options


def _value(shape: Shape, words: list[str]) -> Any:
    text = Path(words[0].removeprefix("file://")).read_text() if words and words[0].startswith("file://") else None
    if shape.type_name == "boolean":
        return True
    if shape.type_name == "list":
        return json.loads(words[0]) if words[0].startswith("[") else words
    if shape.type_name in ("structure", "map"):
        given = text if text is not None else words[0]
        if given.lstrip().startswith("{"):
            return json.loads(given)
        pairs = _pairs(given)
        inner = getattr(shape, "members", {})
        return {key: _value(inner[key], [value]) if key in inner else value for key, value in pairs.items()}
    given = text if text is not None else words[0]
    return {"integer": int, "long": int, "float": float, "double": float}.get(shape.type_name, str)(given)


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(",") if pair)


def _text(answer: Any) -> str:
    return "\t".join(map(str, answer)) if isinstance(answer, list) else str(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
