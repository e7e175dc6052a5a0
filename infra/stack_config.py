"""What a stack's configuration says, checked before anything is planned. The one reader of `pulumi.Config`.

The keys, their types and defaults are declared in Pulumi.yaml; what a value may be is decided here.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast

import pulumi
import pulumi_aws as aws
import yaml
from pulumi.runtime.config import CONFIG, get_config_env

from .authorization import Authorization
from .document_kinds import KIND, PDF, DocumentKind, fault_of, kind_of
from .document_pipeline import PIPELINE_RULES, DocumentPipeline, DocumentPipelineArgs
from .document_progress import PROGRESS_RULES, DocumentProgress, DocumentProgressArgs
from .document_results import DocumentResultsArgs
from .document_uploads import DocumentUploadsArgs
from .lambda_package import Packaging
from .monitoring import MONITORING_RULES, MonitoringArgs
from .rules import BadEntry, Rule, boolean, list_of, matching
from .sign_in import SignIn
from .site import SITE_RULES, SiteArgs
from .urls import EXAMPLE_ORIGIN
from .user_pool import CALLBACK_URLS, DOMAIN_PREFIX, UserPoolArgs

NAMESPACE = "docprogress"


@cache
def declared_defaults() -> Mapping[str, str]:
    """The defaults of Pulumi.yaml. The Pulumi engine fills them in; mocked tests have no engine."""
    project = yaml.safe_load((Path(__file__).parent.parent / "Pulumi.yaml").read_text())
    return {
        key.removeprefix(f"{NAMESPACE}:"): _as_config_text(declaration["default"])
        for key, declaration in project["config"].items()
    }


def _as_config_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _snake_case(key: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", key)


_CHOICE = PROGRESS_RULES["authorization"]


def _is_choice(value: object) -> bool:
    return value == "" or _CHOICE.accepts(value)


# What only this program decides; all else is the components' to say.
_OWN_RULES: Mapping[str, Rule] = {
    "document_pipeline": boolean(),
    "document_kinds": list_of(KIND),
    "document_uploads": boolean(),
    "document_results": boolean(),
    "create_user_pool": boolean(),
    "user_pool_callback_urls": CALLBACK_URLS,
    "user_pool_domain_prefix": DOMAIN_PREFIX,
    "site": boolean(),
    # https://www.rfc-editor.org/rfc/rfc6749#appendix-A.1
    "site_client_id": matching("a client id without spaces", r"[!-~]+", "my-client-id"),
    # Not to have chosen is possible too, where nothing can be lost by it.
    "authorization": dataclasses.replace(
        _CHOICE, read=lambda text: text and _CHOICE.read(text), accepts=_is_choice, example=Authorization.AWS_IAM
    ),
    **PIPELINE_RULES,
    **MONITORING_RULES,
    **SITE_RULES,
}
_RULES: Mapping[str, Rule] = {key: {**PROGRESS_RULES, **_OWN_RULES}[_snake_case(key)] for key in declared_defaults()}


class ConfigError(pulumi.RunError):
    """The configuration cannot be deployed; the message has a sentence and a cure for each wrong key."""


class StackConfig:
    """The checked configuration of one stack, as the arguments of the components that it is for.

    Attributes:
        values: by the keys of Pulumi.yaml in snake case, which are the names of the components' arguments too.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    @classmethod
    def load(cls) -> StackConfig:
        """Read the configuration of the current stack.

        Raises:
            ConfigError: a value is not allowed, or a key of this namespace is not known.
        """
        problems = [_unknown_key(key) for key in _given_keys() if key not in _RULES]
        values: dict[str, Any] = {}
        for key, rule in _RULES.items():
            text = _given_text(key)
            try:
                values[_snake_case(key)] = rule.parse(declared_defaults()[key] if text is None else text)
            except ValueError as error:
                index = error.index if isinstance(error, BadEntry) else None
                problems.append(_bad_value(key, cast(str, text), rule, index))
        if problems:
            raise ConfigError("\n".join(problems))
        loaded = cls(values)
        if contradictions := [_with_cure(*found) for found in loaded._contradictions()]:
            raise ConfigError("\n".join(contradictions))
        loaded._warn()
        return loaded

    @cached_property
    def progress(self) -> DocumentProgressArgs:
        mode = self.values["authorization"] or Authorization.NONE
        return cast(DocumentProgressArgs, {**self._arguments(DocumentProgressArgs), "authorization": mode})

    @cached_property
    def user_pool(self) -> UserPoolArgs | None:
        """None where tokens come from another issuer, or none are asked for."""
        if not self.values["create_user_pool"]:
            return None
        return UserPoolArgs(
            callback_urls=self._callback_urls,
            domain_prefix=self.values["user_pool_domain_prefix"],
            self_sign_up=False,
            disposable=self.values["disposable"],
        )

    @property
    def _callback_urls(self) -> list[str]:
        """The site's own too, where its name is known before it is there."""
        urls, name = list(self.values["user_pool_callback_urls"]), self.values["site_domain_name"]
        return list(dict.fromkeys([*urls, f"https://{name}/"])) if self.values["site"] and name else urls

    @cached_property
    def document_pipeline(self) -> DocumentPipelineArgs | None:
        if not self.values["document_pipeline"]:
            return None
        return cast(DocumentPipelineArgs, {**self._arguments(DocumentPipelineArgs), "more_kinds": self._kinds})

    @property
    def _kinds(self) -> list[DocumentKind]:
        return [kind_of(text) for text in self.values["document_kinds"]]

    @property
    def has_uploads(self) -> bool:
        return bool(self.values["document_uploads"])

    def document_uploads(self, documents: DocumentPipeline, progress: DocumentProgress) -> DocumentUploadsArgs:
        return DocumentUploadsArgs(
            bucket=documents.bucket,
            media_types=documents.media_types,
            table=progress.table,
            functions=progress.functions,
            api=progress.serve_documents(),
        )

    @property
    def has_results(self) -> bool:
        return bool(self.values["document_results"])

    def document_results(self, bucket: aws.s3.Bucket, progress: DocumentProgress) -> DocumentResultsArgs:
        return DocumentResultsArgs(
            bucket=bucket,
            table=progress.table,
            functions=progress.functions,
            shared_documents=self.values["shared_documents"],
            api=progress.serve_documents(),
        )

    @cached_property
    def site(self) -> SiteArgs | None:
        if not self.values["site"]:
            return None
        return cast(SiteArgs, self._arguments(SiteArgs))

    @cached_property
    def sign_in(self) -> SignIn | None:
        """Where the page signs people in, if not in a pool of this program."""
        client_id, audiences = self.values["site_client_id"], self.values["jwt_audience"].split(",")
        if self.values["authorization"] != Authorization.JWT or not client_id:
            return None
        return SignIn(
            issuer=self.values["jwt_issuer"],
            client_id=client_id,
            audience=client_id if client_id in audiences else audiences[0],
        )

    @cached_property
    def monitoring(self) -> MonitoringArgs:
        return MonitoringArgs(**self._arguments(MonitoringArgs))

    def _arguments(self, of: Any) -> dict[str, Any]:
        return {name: self.values[name] for name in of.__annotations__ if name in self.values}

    def _contradictions(self) -> Iterator[tuple[str, str, str]]:
        """Values that are fine alone and not together: a sentence, and the key (or entry) and value that cure it."""
        values = self.values
        mode = values["authorization"]
        if mode == Authorization.JWT and not values["create_user_pool"]:
            for key in ("jwtIssuer", "jwtAudience"):
                if not values[_snake_case(key)]:
                    yield f"authorization is JWT and {key} is empty, so no token could be checked.", key, _example(key)
        if values["create_user_pool"]:
            if mode != Authorization.JWT:
                yield (
                    "createUserPool makes a pool whose tokens nobody would check; they take authorization JWT.",
                    "authorization",
                    "JWT",
                )
            if values["jwt_issuer"] or values["jwt_audience"]:
                yield (
                    "createUserPool and jwtIssuer or jwtAudience both say who issues tokens.",
                    "createUserPool",
                    "false",
                )
            if values["site_client_id"]:
                yield "createUserPool makes the page's client; siteClientId is another issuer's.", "siteClientId", ""
            needed = {
                "userPoolCallbackUrls": ("[0]", self._callback_urls),
                "userPoolDomainPrefix": ("", values["user_pool_domain_prefix"]),
            }
            for key, (entry, given) in needed.items():
                if not given:
                    yield f"createUserPool needs {key}, or nobody could sign in.", f"{key}{entry}", _example(key)
        alarms = [entry.partition("=")[0] for entry in values["alarm_thresholds"]]
        # The last one first: what is removed moves those behind it.
        for index, alarm in reversed([*enumerate(alarms)]):
            if alarm in alarms[:index]:
                sentence = f"alarmThresholds has {alarm} more than once; give each alarm one threshold."
                yield sentence, f"alarmThresholds[{index}]", ""
        if values["alarm_email"] and values["alarm_topic_arn"]:
            yield "alarmEmail and alarmTopicArn both say who is told.", "alarmEmail", ""
        yield from self._contradictions_of_names()
        for key, other in (("siteDomainName", "siteCertificateArn"), ("siteCertificateArn", "siteDomainName")):
            if values["site"] and values[_snake_case(key)] and not values[_snake_case(other)]:
                yield f"{key} needs {other}: a name is served with its certificate.", other, _example(other)
        for key in ("documentKinds", "documentUploads", "documentResults"):
            if values[_snake_case(key)] and not values["document_pipeline"]:
                yield f"{key} needs the bucket of the document pipeline.", "documentPipeline", "true"
        if fault := fault_of([PDF, *self._kinds]):
            sentence, number = fault
            yield f"documentKinds: {sentence}", f"documentKinds[{number - 1}]", ""
        if values["document_results"] and mode == Authorization.NONE and not values["disposable"]:
            yield (
                "documentResults without authorization gives the text of a document to everyone who knows its id; only"
                " a disposable stack takes that.",
                "authorization",
                "JWT",
            )
        if not values["disposable"] and "*" in values["allowed_origins"]:
            yield (
                "allowedOrigins is *, which lets every page on the web connect in the name of its visitors.",
                f"allowedOrigins[{values['allowed_origins'].index('*')}]",
                EXAMPLE_ORIGIN,
            )
        if not values["disposable"]:
            if not mode:
                yield (
                    "authorization is not chosen, and this stack is not disposable. AWS_IAM and JWT ask for a"
                    " signature or a token; NONE lets everyone who knows the URL watch any document.",
                    "authorization",
                    "AWS_IAM",
                )
            for key in ("allowedOrigins", "userPoolCallbackUrls"):
                for index, url in enumerate(values[_snake_case(key)]):
                    if url.startswith("http://"):
                        yield (
                            f"{key} has {url}, a page on the machine of whoever visits it; only a disposable stack"
                            " lets such a page in.",
                            f"{key}[{index}]",
                            _example(key),
                        )
        if not values["disposable"] and mode and mode != Authorization.NONE and values["data_trace_enabled"]:
            yield (
                "Data trace would write tokens and signed URLs into the execution logs, where whoever reads logs"
                " could use them.",
                "dataTraceEnabled",
                "false",
            )
        if values["jwt_issuer"].startswith("http://") and values["lambda_packaging"] == Packaging.LAMBDA:
            yield (
                "jwtIssuer is on this machine, where no function on AWS can ask it.",
                "jwtIssuer",
                _example("jwtIssuer"),
            )
        if values["lambda_packaging"] == Packaging.HOST and not pulumi.Config("aws").get("endpoints"):
            yield (
                "lambdaPackaging is host, and no aws:endpoints lead to the local stack: the functions would not run on"
                " AWS.",
                "lambdaPackaging",
                "lambda",
            )
        region = pulumi.Config("aws").get("region")
        for key, what in (("kmsKeyArn", "key"), ("certificateArn", "certificate")):
            arn = values[_snake_case(key)]
            if region and arn and arn.split(":")[3] != region:
                yield (
                    f"{key} is a {what} of another region than {region}, where it cannot be used.",
                    key,
                    _example(key).replace("us-east-1", region),
                )

    def _contradictions_of_names(self) -> Iterator[tuple[str, str, str]]:
        values = self.values
        names = {
            key: values[_snake_case(key)]
            for key in ("domainName", "documentsDomainName", *(["siteDomainName"] if values["site"] else []))
            if values[_snake_case(key)]
        }
        for index, (key, name) in enumerate(names.items()):
            if name in list(names.values())[:index]:
                yield f"{key} is {name}, which another key has; each of them leads elsewhere.", key, _example(key)
        of_apis = names.keys() - {"siteDomainName"}
        if of_apis and not (values["hosted_zone_id"] or values["certificate_arn"]):
            yield (
                f"{' and '.join(sorted(of_apis))} needs a certificate: hostedZoneId says where one is validated, and"
                " certificateArn names one that you have.",
                "hostedZoneId",
                _example("hostedZoneId"),
            )
        for key in ("hostedZoneId", "certificateArn"):
            if values[_snake_case(key)] and not of_apis:
                yield f"{key} is for a domainName, and there is none.", "domainName", _example("domainName")
        has_documents_api = any(values[key] for key in ("status_api", "document_uploads", "document_results"))
        if "documentsDomainName" in names and not has_documents_api:
            yield (
                "documentsDomainName is for the HTTP API of statusApi, documentUploads and documentResults, and all are"
                " off.",
                "statusApi",
                "true",
            )
        for key in ("domainPath", "disableExecuteApiEndpoint"):
            if values[_snake_case(key)] and "domainName" not in names:
                yield f"{key} needs domainName.", "domainName", _example("domainName")
        if values["disable_execute_api_endpoint"] and has_documents_api and "documentsDomainName" not in names:
            yield (
                "disableExecuteApiEndpoint would leave the HTTP API of documents without an address.",
                "documentsDomainName",
                _example("documentsDomainName"),
            )

    def _warn(self) -> None:
        values = self.values
        stack = pulumi.get_stack()
        use_tokens = f"  pulumi config set {NAMESPACE}:authorization JWT --stack {stack}"
        if not values["disposable"] and values["authorization"] == Authorization.NONE:
            pulumi.warn(
                f"Stack {stack} has no authorization: everyone who knows the URL may connect and watch any document."
                f" See docs/security.md.\n{use_tokens}"
            )
        if values["authorization"] != Authorization.JWT and (values["jwt_issuer"] or values["jwt_audience"]):
            pulumi.warn(
                f"jwtIssuer or jwtAudience is set, but authorization is {values['authorization'] or 'NONE'}: stack"
                f" {stack} checks no token.\n{use_tokens}"
            )
        if values["site"]:
            self._warn_of_site()
        if values["authorization"] not in ("", Authorization.NONE) and values["data_trace_enabled"]:
            pulumi.warn(
                f"Data trace writes the tokens and signed URLs of stack {stack} into its execution logs.\n"
                f"  pulumi config set {NAMESPACE}:dataTraceEnabled false --stack {stack}"
            )

    def _warn_of_site(self) -> None:
        values = self.values
        stack = pulumi.get_stack()
        if values["authorization"] == Authorization.AWS_IAM:
            pulumi.warn(
                f"The site of stack {stack} signs nobody in, so with authorization AWS_IAM its page cannot connect."
                " Serve a page of your own with signed URLs, or take tokens:\n"
                f"  pulumi config set {NAMESPACE}:authorization JWT --stack {stack}"
            )
        if values["authorization"] != Authorization.JWT:
            return
        if not values["create_user_pool"] and not values["site_client_id"]:
            pulumi.warn(
                f"The site of stack {stack} signs nobody in without its client id at jwtIssuer, so its page cannot"
                " connect.\n"
                f"  pulumi config set {NAMESPACE}:siteClientId {_example('siteClientId')} --stack {stack}"
            )
        of_cloudfront = re.compile(r"https://[a-z0-9]+\.cloudfront\.[a-z.]+/")
        if values["create_user_pool"] and not any(
            url == f"https://{values['site_domain_name']}/" or of_cloudfront.fullmatch(url)
            for url in self._callback_urls
        ):
            path = shlex.quote(f"{NAMESPACE}:userPoolCallbackUrls[{len(self._callback_urls)}]")
            pulumi.warn(
                f"Cognito sends people back to userPoolCallbackUrls alone, and the site of stack {stack} is not among"
                " them: CloudFront makes its name up. Once it is there, add it and deploy again:\n"
                f'  pulumi config set --path {path} "$(pulumi stack output siteUrl --stack {stack})" --stack {stack}'
            )


def _given_keys() -> list[str]:
    # pulumi.Config answers for a key, but lists none; these two are where it looks.
    namespaces = _namespaces()
    given = (key.partition(":") for key in {**get_config_env(), **CONFIG.get()})
    return sorted({key for namespace, _, key in given if namespace in namespaces})


def _given_text(key: str) -> str | None:
    texts = (pulumi.Config(namespace).get(key) for namespace in _namespaces())
    return next((text for text in texts if text is not None), None)


def _namespaces() -> tuple[str, ...]:
    # Where the project has another name, the engine gives its defaults under that one.
    return (NAMESPACE, pulumi.get_project())


# What became of earlier keys.
_GONE = {
    "protected": "every stack is, unless docprogress:disposable is true.",
    "allowUnauthenticated": "docprogress:authorization NONE says so.",
}


def _unknown_key(key: str) -> str:
    if key in _GONE:
        return (
            f"{NAMESPACE}:{key} is not a key any more: {_GONE[key]}\n"
            f"  pulumi config rm {NAMESPACE}:{key} --stack {pulumi.get_stack()}"
        )
    by_small_letters = {known.lower(): known for known in _RULES}
    near = difflib.get_close_matches(key.lower(), by_small_letters, n=1, cutoff=0.5)
    hint = (
        f"did you mean {NAMESPACE}:{by_small_letters[near[0]]}?" if near else f"the known keys are {', '.join(_RULES)}."
    )
    return (
        f"{NAMESPACE}:{key} is not a configuration key of this program; {hint}\n"
        f"  pulumi config rm {shlex.quote(f'{NAMESPACE}:{key}')} --stack {pulumi.get_stack()}"
    )


def _bad_value(key: str, text: str, rule: Rule, index: int | None) -> str:
    sentence = f'{NAMESPACE}:{key} is "{text}"; it takes {rule.allowed}.'
    if index is not None:
        # Never to take the whole list away: without allowedOrigins every page could connect.
        return _with_cure(sentence, f"{key}[{index}]", rule.example)
    default = declared_defaults()[key]
    # What is no list can be given no entry.
    return _with_cure(sentence, key, "" if default == "[]" else default or rule.example)


def _with_cure(sentence: str, path: str, value: str) -> str:
    """path: a key, or an entry of a list, such as `allowedOrigins[0]`. value: empty to take it away."""
    full_path = f"{NAMESPACE}:{path}"
    place = f"--path {shlex.quote(full_path)}" if path.endswith("]") else full_path
    command = f"set {place} {shlex.quote(value)}" if value else f"rm {place}"
    return f"{sentence}\n  pulumi config {command} --stack {pulumi.get_stack()}"


def _example(key: str) -> str:
    return _RULES[key].example
