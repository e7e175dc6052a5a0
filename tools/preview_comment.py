"""Turns `pulumi preview --json` into Markdown that shows a reviewer what to look at.

    pulumi preview --json --stack dev | python tools/preview_comment.py --stack dev

Decides which changes are named (data at stake, URLs, rights) and which are only counted. The workflow posts the text.
Needs nothing but Python, since the workflow runs it without the project's environment.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MARKER = "<!-- docprogress preview -->"
# GitHub takes comments of 65,536 characters: four groups of 24 lines and the errors stay below that.
MAX_LINES_PER_GROUP = 24
MAX_LINE_CHARACTERS = 600
MAX_ERROR_CHARACTERS = 6000

# The engine's word for a step, and the reviewer's. An operation that is not here is counted under its own name.
_OPERATIONS = {
    "create": "created",
    "import": "imported",
    "update": "updated",
    "replace": "replaced",
    "create-replacement": "replaced",
    "delete-replaced": "replaced",
    "import-replacement": "replaced",
    "read-replacement": "replaced",
    "discard-replaced": "replaced",
    "remove-pending-replace": "replaced",
    "delete": "deleted",
    "discard": "discarded",
    "same": "unchanged",
    "read": "unchanged",
    "refresh": "unchanged",
}
_MOST_SEVERE_FIRST = ("deleted", "replaced", "updated", "imported", "created", "discarded", "unchanged")

# Made anew without loss. Every other type may hold data, those of a user's own program too.
_HOLDS_NO_DATA = re.compile(
    r"pulumi:"
    r"|aws:(?:iam|lambda|acm|apigateway|apigatewayv2|route53|sns|scheduler|wafv2|cloudfront)/"
    r"|aws:cloudwatch/(?!log(?:Group|Stream):)"
    r"|aws:s3/bucket(?!:|V2:|Object)"
    r"|aws:cognito/(?:userPoolClient|userPoolDomain|resourceServer|identityProvider|managed\w+|userPoolUi\w+):"
    r"|aws:dynamodb/(?:resourcePolicy|tag|contributorInsights|kinesis\w+):"
    r"|aws:kms/(?:alias|grant|keyPolicy):"
    r"|aws:sqs/queue[A-Z]\w*:"
)
# Properties that decide how long data lives and who can read it.
_GUARDS = (
    "deletionProtection",
    "deletionProtectionEnabled",
    "forceDestroy",
    "kmsKeyId",
    "pointInTimeRecovery",
    "retentionInDays",
    "serverSideEncryption",
    "skipDestroy",
    "ttl",
    "versioning",
)
_GUARD_OF_A_BUCKET = re.compile(
    r"aws:s3/bucket(?:Lifecycle|Versioning|PublicAccessBlock|ServerSideEncryption|OwnershipControls|ObjectLock)\w*:"
)

_HAS_URL = re.compile(
    r"aws:apigatewayv2/(?:api|stage|route|domainName|apiMapping):"
    r"|aws:apigateway/(?:restApi|stage|domainName|basePathMapping):"
    r"|aws:cognito/(?:userPoolClient|userPoolDomain):"
    r"|aws:route53/record:|aws:cloudfront/distribution:|aws:lambda/functionUrl:|aws:lb/loadBalancer:"
)
# An update of these moves a URL, or who reaches it; one of anything else leaves URLs alone.
_URL_KEYS = ("aliases", "apiMappingKey", "apiMappings", "disableExecuteApiEndpoint", "domain", "domainName", "routeKey")
_IS_ALL_URL = re.compile(r"aws:apigatewayv2/(?:domainName|apiMapping):|aws:apigateway/basePath|aws:route53/record:")

# What `pulumi preview --json` says in place of a text that only the deployment will know; see
# https://pkg.go.dev/github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin
_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_SECRET = "[secret]"  # noqa: S105 - the engine's word for one
_ACCOUNT = re.compile(r"(?<![0-9])[0-9]{12}(?![0-9])")


@dataclass(frozen=True)
class Change:
    """What the preview would do to one resource.

    Attributes:
        keys: The properties that differ, as the provider names them; of a replacement, those that force it.
        old, new: The inputs before and after; empty where there is no before or after.
        references: For each property of `new` or, where it is deleted, of `old`, the URNs it is made of.
        is_custom: It is something in the account, and no component that only groups others.
        unprotected: It was protected against deletion, and is no longer.
        retained: A deletion takes it out of the stack and leaves it in the account.
    """

    operation: str
    urn: str
    type: str
    keys: tuple[str, ...]
    old: Mapping[str, Any]
    new: Mapping[str, Any]
    references: Mapping[str, Sequence[str]]
    is_custom: bool
    unprotected: bool
    retained: bool

    @property
    def name(self) -> str:
        return self.urn.split("::", 3)[-1]


def read_changes(preview: Mapping[str, Any]) -> list[Change]:
    """One change for each resource: the three steps of a replacement are one."""
    by_urn: dict[str, Change] = {}
    for step in preview.get("steps") or []:
        change = _change(step)
        known = by_urn.get(change.urn)
        if known is None or _severity(change) <= _severity(known):
            by_urn[change.urn] = change
    # Logs come after what people would miss more.
    return sorted(by_urn.values(), key=lambda change: (_severity(change), "/logGroup:" in change.type, change.name))


def _severity(change: Change) -> int:
    if change.operation in _MOST_SEVERE_FIRST:
        return _MOST_SEVERE_FIRST.index(change.operation)
    return len(_MOST_SEVERE_FIRST)


def _change(step: Mapping[str, Any]) -> Change:
    old, new = step.get("oldState") or {}, step.get("newState") or {}
    operation = _OPERATIONS.get(step["op"], step["op"])
    if operation == "deleted" and old.get("delete"):
        operation = "replaced"  # an earlier deployment was interrupted before it deleted what it had replaced
    state = new or old
    return Change(
        operation=operation,
        urn=step["urn"],
        type=state.get("type") or step["urn"].split("::", 3)[2].split("$")[-1],
        keys=tuple(step.get("replaceReasons") or step.get("diffReasons") or step.get("detailedDiff") or ()),
        old=old.get("inputs") or {},
        new=new.get("inputs") or {},
        references=state.get("propertyDependencies") or {},
        is_custom=bool(state.get("custom")),
        unprotected=bool(old.get("protect")) and not new.get("protect"),
        retained=bool(old.get("retainOnDelete")),
    )


# --- the three groups ---


def data_at_stake(changes: Sequence[Change]) -> Iterator[str]:
    gone = _gone(changes)
    for change in changes:
        if change.unprotected and change.operation not in ("deleted", "replaced"):
            yield f"**unprotected** {_named(change)}: a later deployment may delete it"
        if _GUARD_OF_A_BUCKET.match(change.type):
            if change.operation in ("updated", "deleted", "replaced") and not _goes_with(change, gone):
                yield f"**{change.operation}** {_named(change)}{_values(change, change.keys)}"
        elif change.is_custom and not _HOLDS_NO_DATA.match(change.type):
            if change.operation in ("deleted", "replaced"):
                kept = ": it stays in the account, outside of the stack" if change.retained else ""
                yield f"**{change.operation}** {_named(change)}{kept or _values(change, change.keys)}"
            elif change.operation == "updated" and (guards := _those_of(change.keys, _GUARDS)):
                yield f"**updated** {_named(change)}{_values(change, guards)}"


def url_changes(changes: Sequence[Change]) -> Iterator[str]:
    gone = _gone(changes)
    for change in changes:
        if not _HAS_URL.match(change.type):
            continue
        if change.operation in ("deleted", "replaced"):
            if not _goes_with(change, gone):
                yield f"**{change.operation}** {_named(change)}{_values(change, change.keys)}"
        elif change.operation == "updated":
            keys = change.keys if _IS_ALL_URL.match(change.type) else _those_of(change.keys, _URL_KEYS)
            if keys:
                yield f"**updated** {_named(change)}{_values(change, keys)}"


def new_rights(changes: Sequence[Change]) -> Iterator[str]:
    gone = _gone(changes)
    for change in changes:
        if change.operation == "unchanged" or (change.operation == "deleted" and _goes_with(change, gone)):
            continue
        for right in _rights(change):
            yield f"{_named(change)}: {right}"


def other_changes(changes: Sequence[Change]) -> Iterator[str]:
    """What the three groups do not name."""
    named = " ".join((*data_at_stake(changes), *url_changes(changes), *new_rights(changes)))
    for change in changes:
        if change.operation != "unchanged" and change.is_custom and _named(change) not in named:
            yield f"**{change.operation}** {_named(change)}{_values(change, change.keys)}"


def _gone(changes: Iterable[Change]) -> frozenset[str]:
    return frozenset(change.urn for change in changes if change.operation == "deleted" and not change.retained)


def _goes_with(change: Change, gone: frozenset[str]) -> bool:
    """Whether it is deleted together with what it belongs to, so that a line of its own would only repeat that one."""
    return change.operation == "deleted" and any(
        urn in gone for key in ("apiId", "bucket", "restApiId") for urn in change.references.get(key, ())
    )


def _those_of(keys: Iterable[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The keys whose first part is wanted: `ttl.enabled` for `ttl`."""
    return tuple(key for key in keys if re.split(r"[.\[]", key, maxsplit=1)[0] in wanted)


# --- rights ---


@dataclass(frozen=True, order=True)
class _Right:
    """One action on one resource, as a policy statement gives it."""

    effect: str
    principal: str
    action: str
    resource: str
    condition: str


def _rights(change: Change) -> Iterator[str]:
    unknown = [key for key in _unknown_policies(change.new) if change.old.get(key) != change.new[key]]
    for key in unknown:
        urns = sorted({urn for each in (key, "role") for urn in change.references.get(each, ())})
        about = ", ".join(_code(urn.split("::", 3)[-1]) for urn in urns)
        yield f"a new `{key}`, known only after the deployment" + (f"; it names {about}" if about else "")
    before, after = set(_statements(change.old)), set(_statements(change.new))
    if not unknown:
        yield from _sentences("allows", (right for right in after - before if right.effect == "Allow"))
        yield from _sentences("no longer denies", (right for right in before - after if right.effect == "Deny"))
    match change.type.split(":")[1]:
        case "lambda/permission" if change.operation != "deleted":
            yield _permission(change.new)
        case (
            "iam/rolePolicyAttachment"
            | "iam/userPolicyAttachment"
            | "iam/groupPolicyAttachment"
            | "iam/policyAttachment"
        ):
            if change.operation != "deleted":
                yield f"attaches the policy {_shown(change.new.get('policyArn'))}"
        case "iam/role" | "iam/user":
            added = set(_texts(change.new.get("managedPolicyArns"))) - set(_texts(change.old.get("managedPolicyArns")))
            for arn in sorted(added):
                yield f"attaches the policy {_shown(arn)}"
            if change.new and change.old.get("permissionsBoundary") not in (
                None,
                change.new.get("permissionsBoundary"),
            ):
                yield f"its permissions boundary becomes {_shown(change.new.get('permissionsBoundary'))}"
        case "apigateway/account":
            yield f"**{change.operation}** the role that writes the logs of every API in the account and region"
        case "apigatewayv2/route" if change.operation != "deleted":
            opened = not _is_open(change.old) if change.old else _is_entry(change)
            if opened and _is_open(change.new):
                yield "anyone may call it: no authorization"


def _unknown_policies(inputs: Mapping[str, Any]) -> list[str]:
    return [
        key
        for key, value in inputs.items()
        if value in (_UNKNOWN, _SECRET) and key.lower().endswith(("policy", "policydocument", "policyjson"))
    ]


def _statements(value: object) -> Iterator[_Right]:
    """What every policy document within the inputs says, wherever it stands and however it is written."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return
    if isinstance(value, Mapping):
        if "Statement" in value:
            found = value["Statement"]
            for statement in found if isinstance(found, list) else [found]:
                if isinstance(statement, Mapping):
                    yield from _of_statement(statement)
        else:
            for inner in value.values():
                yield from _statements(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _statements(inner)


def _of_statement(statement: Mapping[str, Any]) -> Iterator[_Right]:
    condition = json.dumps(statement["Condition"], sort_keys=True) if statement.get("Condition") else ""
    for principal in _parts(statement, "Principal") or [""]:
        for action in _parts(statement, "Action"):
            for resource in _parts(statement, "Resource") or [""]:
                yield _Right(str(statement.get("Effect")), principal, action, resource, condition)


def _parts(statement: Mapping[str, Any], element: str) -> list[str]:
    """The entries of an element of a statement, or of its opposite, as NotAction."""
    return [
        *_texts(statement.get(element)),
        *(f"everything but {text}" for text in _texts(statement.get(f"Not{element}"))),
    ]


def _texts(value: object) -> list[str]:
    if isinstance(value, Mapping):  # principals: {"Service": "lambda.amazonaws.com"}
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [] if value is None else [str(value)]


def _sentences(verb: str, rights: Iterable[_Right]) -> Iterator[str]:
    """One sentence for all actions on one resource, and then for all resources with the same actions."""
    actions: dict[tuple[str, str, str], list[str]] = {}
    for right in sorted(rights):
        actions.setdefault((right.principal, right.resource, right.condition), []).append(right.action)
    resources: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for (principal, resource, condition), found in actions.items():
        resources.setdefault((principal, condition, tuple(found)), []).append(resource)
    for (principal, condition, found_actions), found_resources in resources.items():
        sentence = f"{verb} {_list(found_actions)}"
        if any(found_resources):
            sentence += f" on {_list(found_resources)}"
        if principal:
            sentence += f" to {_code(principal)}"
        if condition:
            sentence += f" if {_code(condition)}"
        wild = any(_is_wild(text) for text in (*found_actions, *found_resources))
        yield sentence + (" (**wildcard**)" if wild else "")


def _is_wild(text: str) -> bool:
    return text == "*" or text.endswith(":*") or text.startswith("everything but ")


def _permission(inputs: Mapping[str, Any]) -> str:
    who = _shown(inputs.get("principal"))
    source = f" from {_shown(inputs['sourceArn'])}" if "sourceArn" in inputs else ", **whatever the source**"
    return f"{who} may call {_shown(inputs.get('action'))} on {_shown(inputs.get('function'))}{source}"


def _is_open(route: Mapping[str, Any]) -> bool:
    return route.get("authorizationType") in (None, "", "NONE")


def _is_entry(change: Change) -> bool:
    """A WebSocket is authorized on $connect alone; a route of an HTTP API has a method, a space and a path."""
    key = str(change.new.get("routeKey"))
    return key == "$connect" or " " in key


# --- text ---


def comment(preview: Mapping[str, Any], *, stack: str, every_change: bool = False) -> str:
    """The whole comment, with `MARKER` in its first line to find it by.

    Args:
        every_change: Name the other changes too, where any change is news.
    """
    changes = read_changes(preview)
    groups = {
        "Data at stake": list(data_at_stake(changes)),
        "URLs that change": list(url_changes(changes)),
        "New rights": list(new_rights(changes)),
        "Other changes": list(other_changes(changes)) if every_change else [],
    }
    parts = [MARKER, f"### Preview of {_code(stack)}", *_errors(preview)]
    if not any(groups[title] for title in ("Data at stake", "URLs that change", "New rights")):
        parts.append("No data is at stake, no URL changes, and nobody gets a new right.")
    for title, lines in groups.items():
        if lines:
            parts.append(f"#### {title}\n\n" + "\n".join(_bullets(lines)))
    parts.append("#### All resources\n\n" + _counts(preview))
    return "\n\n".join(parts) + "\n"


def _errors(preview: Mapping[str, Any]) -> Iterator[str]:
    messages = [
        str(diagnostic.get("message", "")).strip()
        for diagnostic in preview.get("diagnostics") or []
        if diagnostic.get("severity") == "error"
    ]
    if messages:
        text = _without_accounts("\n".join(messages))[:MAX_ERROR_CHARACTERS]
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        yield f"**The preview failed.** What follows is what it knew until then.\n\n{fence}\n{text}\n{fence}"


def _bullets(lines: Sequence[str]) -> Iterator[str]:
    for line in lines[:MAX_LINES_PER_GROUP]:
        yield f"- {line}" if len(line) <= MAX_LINE_CHARACTERS else f"- {_cut(line)}"
    if len(lines) > MAX_LINES_PER_GROUP:
        yield f"- and **{len(lines) - MAX_LINES_PER_GROUP} more**: `make preview` shows all of them"


def _cut(line: str) -> str:
    kept = line[:MAX_LINE_CHARACTERS]
    # An odd number of backticks would leave a code span open, into the next lines.
    return kept + ("`" if kept.count("`") % 2 else "") + " …"


def _counts(preview: Mapping[str, Any]) -> str:
    # The steps leave out what stays the same; the summary counts it.
    counted: Counter[str] = Counter()
    for operation, count in (preview.get("changeSummary") or {}).items():
        counted[_OPERATIONS.get(operation, operation)] += count
    order = [*_MOST_SEVERE_FIRST, *sorted(set(counted) - set(_MOST_SEVERE_FIRST))]
    return ", ".join(f"{counted[operation]} {operation}" for operation in order if counted[operation]) or "none"


def _named(change: Change) -> str:
    return f"{_code(change.name)} ({change.type.split(':')[-1]})"


def _values(change: Change, keys: Iterable[str]) -> str:
    """How the properties change, with both values where they are short."""
    shown = []
    for key in keys:
        before, after = change.old.get(key), change.new.get(key)
        plain = all(isinstance(value, str | int | float | bool | None) for value in (before, after))
        shown.append(f"`{key}` {_shown(before)} → {_shown(after)}" if plain and before != after else f"`{key}`")
    return f": {', '.join(shown)}" if shown else ""


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if value == _UNKNOWN:
        return "(known only after the deployment)"
    return _code(json.dumps(value) if isinstance(value, bool) else str(value))


def _list(texts: Iterable[str]) -> str:
    return ", ".join(_code(text) for text in texts)


def _code(text: str) -> str:
    """A code span, in which nothing is a link, a mention or markup."""
    plain = re.sub(r"\s+", " ", _without_accounts(text)).replace("`", "'").strip()
    return f"`{plain or ' '}`"


def _without_accounts(text: str) -> str:
    return _ACCOUNT.sub("<account>", text)


def parse(text: str) -> Mapping[str, Any]:
    """The preview's object, which an installer's lines may precede.

    Raises:
        ValueError: There is none.
    """
    start = 0 if text.startswith("{") else text.find("\n{") + 1
    preview = json.loads(text[start:])
    steps = preview.get("steps", []) if isinstance(preview, dict) else None
    if not isinstance(steps, list) or not all(
        isinstance(step, dict) and {"op", "urn"} <= step.keys() for step in steps
    ):
        raise ValueError("it is no object with steps")
    found: Mapping[str, Any] = preview
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Show a reviewer what to look at in `pulumi preview --json`.")
    parser.add_argument("--stack", required=True, help="the stack that was previewed")
    parser.add_argument(
        "--every-change", action="store_true", help="name the other changes too, and not only count them"
    )
    options = parser.parse_args(arguments)
    try:
        preview = parse(sys.stdin.read())
    except ValueError as error:
        # The comment must say so: an older one would be taken for the result.
        print(f"{MARKER}\n\n### Preview of {_code(options.stack)}\n\n**The preview gave no result.** Its log says why.")
        print(f"preview_comment: standard input is not what `pulumi preview --json` prints: {error}", file=sys.stderr)
        return 1
    print(comment(preview, stack=options.stack, every_change=options.every_change), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
