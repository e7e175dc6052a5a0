"""The page of web/, hosted: a private bucket behind CloudFront, and the settings that lead it to this stack."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

import pulumi
import pulumi_aws as aws

from .authorization import TokenAuthorization
from .document_progress import DocumentProgress
from .document_results import DocumentResults
from .document_uploads import DocumentUploads
from .keeping import kept
from .lambda_package import PROJECT
from .policy import allow
from .private_bucket import keep_private
from .rules import Rule, matching
from .sign_in import SignIn
from .token_authorizer import TokenSource
from .urls import domain_name

_PAGE = PROJECT / "web"
_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOR_EVER = "public, max-age=31536000, immutable"
_NEVER = "no-cache"
# AWS's own CachingOptimized, which obeys Cache-Control and keeps what is no-cache for a second.
# https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/using-managed-cache-policies.html
_CACHE_POLICY = "658327ea-f89d-4fab-a63d-7e88639e58f6"
_TWO_YEARS = 2 * 365 * 24 * 3600


class SiteArgs(TypedDict):
    """How a site is served."""

    disposable: bool
    """The site may be deleted, and its URL with it."""
    site_domain_name: str
    """Of the site, in place of the one that CloudFront makes up. Empty for none."""
    site_certificate_arn: str
    """Of site_domain_name, in us-east-1."""


SITE_RULES: Mapping[str, Rule] = {
    "site_domain_name": domain_name("progress.example.com"),
    # https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cnames-and-https-requirements.html
    "site_certificate_arn": matching(
        "the ARN of a certificate in ACM in us-east-1",
        r"arn:aws:acm:us-east-1:[0-9]{12}:certificate/[0-9A-Za-z-]+",
        "arn:aws:acm:us-east-1:123456789012:certificate/00000000-0000-0000-0000-000000000000",
    ),
}


class Site(pulumi.ComponentResource):
    """
    ```python
    site = Site("site", args, progress=progress, uploads=uploads)
    pulumi.export("siteUrl", site.url)
    ```

    Attributes:
        url: of the page, `https://…/`.
        target: CloudFront's name for it, to which a DNS record of the site's own name points.
    """

    url: pulumi.Output[str]
    target: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        args: SiteArgs,
        opts: pulumi.ResourceOptions | None = None,
        *,
        progress: DocumentProgress,
        uploads: DocumentUploads | None = None,
        results: DocumentResults | None = None,
        sign_in: SignIn | None = None,
    ) -> None:
        """
        Args:
            uploads: None for a page that only watches.
            results: None for a page that links to none.
            sign_in: None for a page that signs nobody in.
        """
        super().__init__("docprogress:infra:Site", name, None, opts)
        self._name = name
        self._args = args
        self._child = pulumi.ResourceOptions(parent=self)
        self._kept = kept(parent=self, disposable=args["disposable"])
        self._settings: dict[str, Any] = {"websocketUrl": progress.url}
        self._hosts: list[pulumi.Input[str]] = [progress.url]
        if uploads:
            self._settings |= {"uploadUrl": uploads.url, **uploads.page_settings}
            # A form goes to the bucket, by whichever of its names the function's SDK has signed for.
            names = (uploads.bucket.bucket_regional_domain_name, uploads.bucket.bucket_domain_name)
            self._hosts += [uploads.url, *(pulumi.Output.concat("https://", each) for each in names)]
        if results:
            self._settings["resultsUrl"] = results.url
            self._hosts.append(results.url)
        if sign_in:
            self._settings["signIn"] = sign_in.settings
            self._hosts += [sign_in.issuer, *sign_in.hosts]
        authorization = progress.authorization
        if isinstance(authorization, TokenAuthorization) and authorization.token_source == TokenSource.QUERYSTRING:
            self._settings["tokenTransport"] = "query"
        # Every object is made anew from web/, so nothing is lost with the bucket but the URL that leads there.
        self._bucket = aws.s3.Bucket(f"{name}-bucket", opts=self._kept)
        distribution = self._distribute()
        keep_private(
            name,
            self._bucket,
            {
                **allow(["s3:GetObject"], [pulumi.Output.concat(self._bucket.arn, "/*")]),
                "Principal": {"Service": "cloudfront.amazonaws.com"},
                "Condition": {"StringEquals": {"AWS:SourceArn": distribution.arn}},
            },
            parent=self,
        )
        self._upload_page()
        self.target = distribution.domain_name
        self.url = pulumi.Output.concat("https://", args["site_domain_name"] or distribution.domain_name, "/")
        self.register_outputs({"url": self.url, "target": self.target})

    def _distribute(self) -> aws.cloudfront.Distribution:
        access = aws.cloudfront.OriginAccessControl(
            f"{self._name}-access",
            origin_access_control_origin_type="s3",
            signing_behavior="always",
            signing_protocol="sigv4",
            opts=self._child,
        )
        certificate_arn = self._args["site_certificate_arn"]
        return aws.cloudfront.Distribution(
            f"{self._name}-distribution",
            comment=f"The page of {pulumi.get_project()}-{pulumi.get_stack()}",
            enabled=True,
            is_ipv6_enabled=True,
            http_version="http2and3",
            default_root_object="index.html",
            aliases=[self._args["site_domain_name"]] if certificate_arn else None,
            origins=[
                {
                    "origin_id": "page",
                    "domain_name": self._bucket.bucket_regional_domain_name,
                    "origin_access_control_id": access.id,
                }
            ],
            default_cache_behavior={
                "target_origin_id": "page",
                "viewer_protocol_policy": "redirect-to-https",
                "allowed_methods": ["GET", "HEAD"],
                "cached_methods": ["GET", "HEAD"],
                "cache_policy_id": _CACHE_POLICY,
                "compress": True,
                "response_headers_policy_id": self._headers().id,
            },
            restrictions={"geo_restriction": {"restriction_type": "none"}},
            # With its own certificate CloudFront takes TLS 1.0 too, whatever is asked for here; hence siteDomainName.
            # https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_ViewerCertificate.html
            viewer_certificate={
                "acm_certificate_arn": certificate_arn,
                "minimum_protocol_version": "TLSv1.2_2021",
                "ssl_support_method": "sni-only",
            }
            if certificate_arn
            else {"cloudfront_default_certificate": True},
            opts=self._kept,
        )

    def _headers(self) -> aws.cloudfront.ResponseHeadersPolicy:
        custom = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin"}
        return aws.cloudfront.ResponseHeadersPolicy(
            f"{self._name}-headers",
            security_headers_config={
                "content_security_policy": {
                    "content_security_policy": pulumi.Output.all(*self._hosts).apply(_content_security_policy),
                    "override": True,
                },
                "strict_transport_security": {"access_control_max_age_sec": _TWO_YEARS, "override": True},
                "content_type_options": {"override": True},
                "referrer_policy": {"referrer_policy": "no-referrer", "override": True},
                "frame_options": {"frame_option": "DENY", "override": True},
            },
            custom_headers_config={
                "items": [{"header": key, "value": value, "override": True} for key, value in custom.items()]
            },
            opts=self._child,
        )

    def _upload_page(self) -> None:
        page = Page.read(_PAGE)
        # The new files stand before the page that asks for them, and the old ones go last.
        assets = [
            self._upload(path, f"{page.folder}/{path}", text, _CONTENT_TYPES[Path(path).suffix], _FOR_EVER)
            for path, text in page.assets.items()
        ]
        settings = pulumi.Output.json_dumps(self._settings, sort_keys=True)
        assets.append(self._upload("config.json", "config.json", settings, "application/json", _NEVER))
        self._upload("index.html", "index.html", page.index, "text/html; charset=utf-8", _NEVER, after=assets)

    def _upload(
        self,
        name: str,
        key: str,
        content: pulumi.Input[str],
        content_type: str,
        cache_control: str,
        after: list[pulumi.Resource] | None = None,
    ) -> pulumi.Resource:
        return aws.s3.BucketObjectv2(
            f"{self._name}-{name}",
            bucket=self._bucket.id,
            key=key,
            content=content,
            content_type=content_type,
            cache_control=cache_control,
            opts=pulumi.ResourceOptions(parent=self, depends_on=after),
        )


class Page:
    """The page's files, ready to be cached.

    All but index.html go into one folder that is named after what is in it. So a file's name says its content, as a
    cache needs, and the modules go on importing one another by the names that they have.

    Attributes:
        assets: each file's text by its path in the folder.
    """

    def __init__(self, index: str, assets: Mapping[str, str]) -> None:
        self.assets = assets
        digest = hashlib.sha256()
        for path, text in sorted(assets.items()):
            # Its length keeps one file's end apart from the next one's beginning.
            digest.update(f"{path}\n{len(text)}\n{text}".encode())
        self.folder = f"assets-{digest.hexdigest()[:16]}"
        self.index = re.sub(r'\b(href|src)="([^"]*)"', self._moved, index)

    @classmethod
    def read(cls, folder: Path) -> Page:
        files = sorted(
            file for each in (folder, folder / "client") for file in each.iterdir() if file.suffix in _CONTENT_TYPES
        )
        return cls(
            (folder / "index.html").read_text("utf-8"),
            {file.relative_to(folder).as_posix(): file.read_text("utf-8") for file in files},
        )

    def _moved(self, link: re.Match[str]) -> str:
        attribute, path = link.groups()
        return f'{attribute}="{self.folder}/{path}"' if path in self.assets else link[0]


def _content_security_policy(urls: list[Any]) -> str:
    """The page's own files, and the servers of the stack alone (https://www.w3.org/TR/CSP3/)."""
    addresses = [urlsplit(url) for url in urls]
    hosts = dict.fromkeys(f"{address.scheme}://{address.netloc}" for address in addresses)
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self' {' '.join(hosts)}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
