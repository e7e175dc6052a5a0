"""A domain name of one's own before an API: its certificate, what it leads to, and its DNS records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from .keeping import kept
from .rules import Rule, boolean, matching
from .urls import domain_name

DOMAIN_RULES: Mapping[str, Rule] = {
    "domain_name": domain_name("live.example.com"),
    # Several levels are for the mappings of HTTP and REST APIs only.
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/websocket-api-mappings.html
    "domain_path": matching("one part of a path, 1 to 128 letters, digits, - and _", r"[A-Za-z0-9_-]{1,128}", "live"),
    "hosted_zone_id": matching("the id of a hosted zone in Route 53", r"Z[A-Z0-9]{1,31}", "Z0123456789ABCDEFGHIJ"),
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/how-to-specify-certificate-for-custom-domain-name.html
    "certificate_arn": matching(
        "the ARN of a certificate in ACM",
        r"arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[0-9A-Za-z-]+",
        "arn:aws:acm:us-east-1:123456789012:certificate/00000000-0000-0000-0000-000000000000",
    ),
    "dual_stack": boolean(),
    "disable_execute_api_endpoint": boolean(),
}
DOMAIN_DEFAULTS: Mapping[str, Any] = {
    "domain_name": "",
    "domain_path": "",
    "hosted_zone_id": "",
    "certificate_arn": "",
    "dual_stack": False,
    "disable_execute_api_endpoint": False,
}


@dataclass(frozen=True, kw_only=True)
class CustomDomainArgs:
    """
    Attributes:
        path: between the domain name and what the API serves; empty for none.
        hosted_zone_id: where the records go, and those that the certificate is validated by. Empty for DNS elsewhere.
        certificate_arn: of a certificate in the API's region. Empty for a new one, which takes hosted_zone_id.
        disposable: the name may be deleted, and its URL with it.

    Raises:
        ValueError: there is neither a certificate nor a zone to validate one in.
    """

    domain_name: str
    path: str = ""
    hosted_zone_id: pulumi.Input[str] = ""
    certificate_arn: pulumi.Input[str] = ""
    dual_stack: bool = False
    disposable: bool = False

    def __post_init__(self) -> None:
        # Only text can be empty now; an Output has no value yet.
        if self.hosted_zone_id == "" and self.certificate_arn == "":
            raise ValueError(
                f"{self.domain_name} has neither hosted_zone_id nor certificate_arn: give the zone in which a"
                " certificate is validated, or the certificate."
            )

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> CustomDomainArgs | None:
        """From the checked arguments of an API; None where they have no name."""
        if not args["domain_name"]:
            return None
        return cls(
            domain_name=args["domain_name"],
            path=args["domain_path"],
            **{key: args[key] for key in ("hosted_zone_id", "certificate_arn", "dual_stack", "disposable")},
        )

    @property
    def address(self) -> str:
        """What comes after `https://` or `wss://`."""
        return f"{self.domain_name}/{self.path}" if self.path else self.domain_name

    @property
    def has_zone(self) -> bool:
        return self.hosted_zone_id != ""


class CustomDomain(pulumi.ComponentResource):
    """
    ```python
    domain = CustomDomain("api-domain", args, api_id=api.id, stage_name=stage.name)
    url = pulumi.Output.concat("wss://", domain.address)
    ```

    Attributes:
        address: what comes after `https://` or `wss://`. Known once API Gateway takes requests for it.
        target: API Gateway's name for it, to which a CNAME record in a DNS elsewhere points.
    """

    address: pulumi.Output[str]
    target: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        args: CustomDomainArgs,
        opts: pulumi.ResourceOptions | None = None,
        *,
        api_id: pulumi.Input[str],
        stage_name: pulumi.Input[str],
    ) -> None:
        super().__init__("docprogress:infra:CustomDomain", name, None, opts)
        self._name = name
        self._args = args
        self._kept = kept(parent=self, disposable=args.disposable)
        domain = aws.apigatewayv2.DomainName(
            f"{name}-name",
            domain_name=args.domain_name,
            domain_name_configuration={
                "certificate_arn": self._validated_certificate()
                if args.certificate_arn == ""
                else args.certificate_arn,
                "endpoint_type": "REGIONAL",
                "security_policy": "TLS_1_2",
                "ip_address_type": ip_address_type(dual_stack=args.dual_stack),
            },
            opts=self._kept,
        )
        mapping = aws.apigatewayv2.ApiMapping(
            f"{name}-mapping",
            api_id=api_id,
            stage=stage_name,
            domain_name=domain.id,
            api_mapping_key=args.path or None,
            # In place, another path would take the known URL away without a word.
            opts=pulumi.ResourceOptions.merge(self._kept, pulumi.ResourceOptions(replace_on_changes=["apiMappingKey"])),
        )
        ready: list[pulumi.Output[str]] = [mapping.id]
        if args.has_zone:
            ready += [self._record(kind, domain, mapping).fqdn for kind in ("A", "AAAA")]
        self.address = pulumi.Output.all(*ready).apply(lambda _: args.address)
        self.target = domain.domain_name_configuration.target_domain_name
        self.register_outputs({"address": self.address, "target": self.target})

    def _validated_certificate(self) -> pulumi.Output[str]:
        """The ARN of a new certificate, known once it is issued."""
        child = pulumi.ResourceOptions(parent=self)
        certificate = aws.acm.Certificate(
            f"{self._name}-certificate", domain_name=self._args.domain_name, validation_method="DNS", opts=child
        )
        validation = certificate.domain_validation_options[0]
        record = aws.route53.Record(
            f"{self._name}-validation-record",
            zone_id=self._args.hosted_zone_id,
            name=validation.resource_record_name,
            type=validation.resource_record_type,
            records=[validation.resource_record_value],
            ttl=300,
            opts=child,
        )
        return aws.acm.CertificateValidation(
            f"{self._name}-validation",
            certificate_arn=certificate.arn,
            validation_record_fqdns=[record.fqdn],
            # ACM takes minutes. A zone that no other zone points to is never asked, and the default is 75 minutes.
            opts=pulumi.ResourceOptions.merge(
                child, pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="30m"))
            ),
        ).certificate_arn

    def _record(
        self, kind: str, domain: aws.apigatewayv2.DomainName, mapping: aws.apigatewayv2.ApiMapping
    ) -> aws.route53.Record:
        """An alias, which a zone's own name takes too. One that is there already is somebody's, and is not replaced."""
        return aws.route53.Record(
            f"{self._name}-{kind.lower()}-record",
            zone_id=self._args.hosted_zone_id,
            name=self._args.domain_name,
            type=kind,
            aliases=[
                {
                    "name": domain.domain_name_configuration.target_domain_name,
                    "zone_id": domain.domain_name_configuration.hosted_zone_id,
                    "evaluate_target_health": False,
                }
            ],
            opts=pulumi.ResourceOptions.merge(self._kept, pulumi.ResourceOptions(depends_on=[mapping])),
        )


def ip_address_type(*, dual_stack: bool) -> str:
    """Always said: left out, it stays what it was."""
    return "dualstack" if dual_stack else "ipv4"
