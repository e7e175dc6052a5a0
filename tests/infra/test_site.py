"""The hosted page: who can read its bucket, what CloudFront says with it, and how long a browser keeps what.

Does not prove that CloudFront takes these inputs, nor that the page works: tests/browser does that for the same files.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pulumi
import pytest

from infra.site import SITE_RULES, Page, Site, SiteArgs
from infra.stack_config import ConfigError
from tests.infra.conftest import EVERYTHING
from tests.infra.samples import document, document_progress
from tests.mock_engine import ACCOUNT, PARTITION, PROJECT_ROOT, REGION, SUFFIX, Graph, Resource, run, run_main

WEBSOCKET = f"api-api-id.execute-api.{REGION}.amazonaws.com.cn"
CERTIFICATE = SITE_RULES["site_certificate_arn"].example


def site(**changes: Any) -> Graph:
    args: SiteArgs = {"disposable": False, "site_domain_name": "", "site_certificate_arn": ""}

    def program() -> None:
        hosted = Site("site", {**args, **changes}, progress=document_progress())  # type: ignore[typeddict-item]
        pulumi.export("url", hosted.url)
        pulumi.export("target", hosted.target)

    return run(program)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return site()


def objects(graph: Graph) -> dict[str, Resource]:
    return {each.inputs["key"]: each for each in graph.of("BucketObjectv2")}


def policy_of(graph: Graph) -> dict[str, Any]:
    headers: dict[str, Any] = graph.one("ResponseHeadersPolicy").inputs["securityHeadersConfig"]
    return headers


def test_the_bucket_is_read_by_this_distribution_over_tls_and_by_nobody_else(graph: Graph) -> None:
    bucket = f"arn:{PARTITION}:s3:::site-bucket-{SUFFIX}"
    assert document(graph.one("BucketPolicy"), "policy")["Statement"] == [
        {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [bucket, f"{bucket}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        },
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject"],
            "Resource": [f"{bucket}/*"],
            "Principal": {"Service": "cloudfront.amazonaws.com"},
            "Condition": {
                "StringEquals": {
                    "AWS:SourceArn": f"arn:{PARTITION}:cloudfront::{ACCOUNT}:distribution/site-distribution-id"
                }
            },
        },
    ]
    assert set(graph.one("BucketPublicAccessBlock").inputs.values()) == {f"site-bucket-{SUFFIX}", True}
    assert graph.one("BucketOwnershipControls").inputs["rule"] == {"objectOwnership": "BucketOwnerEnforced"}
    (rule,) = graph.one("BucketServerSideEncryptionConfiguration").inputs["rules"]
    assert rule == {"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}


def test_the_distribution_asks_the_bucket_with_a_signature(graph: Graph) -> None:
    access = graph.one("OriginAccessControl")
    assert access.inputs == {
        "originAccessControlOriginType": "s3",
        "signingBehavior": "always",
        "signingProtocol": "sigv4",
    }
    assert graph.one("Distribution").inputs == {
        "comment": "The page of docprogress-test",
        "enabled": True,
        "isIpv6Enabled": True,
        "httpVersion": "http2and3",
        "defaultRootObject": "index.html",
        "origins": [
            {
                "originId": "page",
                # A bucket's other name is answered with a redirect until the new bucket is known everywhere.
                "domainName": f"site-bucket-{SUFFIX}.s3.{REGION}.amazonaws.com.cn",
                "originAccessControlId": access.id,
            }
        ],
        "defaultCacheBehavior": {
            "targetOriginId": "page",
            "viewerProtocolPolicy": "redirect-to-https",
            "allowedMethods": ["GET", "HEAD"],
            "cachedMethods": ["GET", "HEAD"],
            "cachePolicyId": "658327ea-f89d-4fab-a63d-7e88639e58f6",
            "compress": True,
            "responseHeadersPolicyId": graph.one("ResponseHeadersPolicy").id,
        },
        "restrictions": {"geoRestriction": {"restrictionType": "none"}},
        "viewerCertificate": {"cloudfrontDefaultCertificate": True},
    }
    assert graph.outputs == {
        "url": "https://site-distribution-id.cloudfront.cn/",
        "target": "site-distribution-id.cloudfront.cn",
    }


def test_a_name_of_ones_own_has_its_certificate_and_no_tls_below_1_2() -> None:
    graph = site(site_domain_name="progress.example.com", site_certificate_arn=CERTIFICATE)
    inputs = graph.one("Distribution").inputs
    assert inputs["aliases"] == ["progress.example.com"]
    assert inputs["viewerCertificate"] == {
        "acmCertificateArn": CERTIFICATE,
        "minimumProtocolVersion": "TLSv1.2_2021",
        "sslSupportMethod": "sni-only",
    }
    assert graph.outputs["url"] == "https://progress.example.com/"
    assert graph.outputs["target"] == "site-distribution-id.cloudfront.cn", "the name's record points there"


def test_a_page_may_reach_its_own_stack_and_nothing_else(everything: Graph, graph: Graph) -> None:
    def connections(graph: Graph) -> list[str]:
        text = policy_of(graph)["contentSecurityPolicy"]["contentSecurityPolicy"]
        directives = dict(each.split(" ", 1) for each in text.split("; "))
        assert directives["default-src"] == directives["frame-ancestors"] == directives["base-uri"] == "'none'"
        assert directives["script-src"] == directives["style-src"] == "'self'"
        return str(directives["connect-src"]).split(" ")

    assert connections(graph) == ["'self'", f"wss://{WEBSOCKET}"]
    bucket = f"https://documents-bucket-{SUFFIX}.s3"
    assert connections(everything) == [
        *("'self'", "wss://live.example.com", "https://documents.example.com"),
        # A form is signed for either name.
        *(f"{bucket}.{REGION}.amazonaws.com.cn", f"{bucket}.amazonaws.com.cn"),
        # Where Cognito says where it signs people in, and where it gives them tokens.
        *(f"https://cognito-idp.{REGION}.amazonaws.com.cn", f"https://acme-documents.auth.{REGION}.amazoncognito.com"),
    ]


def test_every_answer_tells_the_browser_to_be_careful(graph: Graph) -> None:
    headers = policy_of(graph)
    assert {key: value for key, value in headers.items() if key != "contentSecurityPolicy"} == {
        "strictTransportSecurity": {"accessControlMaxAgeSec": 63_072_000, "override": True},
        "contentTypeOptions": {"override": True},
        "referrerPolicy": {"referrerPolicy": "no-referrer", "override": True},
        "frameOptions": {"frameOption": "DENY", "override": True},
    }
    assert graph.one("ResponseHeadersPolicy").inputs["customHeadersConfig"] == {
        "items": [
            {"header": "Cross-Origin-Opener-Policy", "value": "same-origin", "override": True},
            {"header": "Cross-Origin-Resource-Policy", "value": "same-origin", "override": True},
        ]
    }


def settings(graph: Graph) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(objects(graph)["config.json"].inputs["content"])
    return read


def test_the_page_finds_its_own_stack(everything: Graph, graph: Graph) -> None:
    assert settings(graph) == {"websocketUrl": f"wss://{WEBSOCKET}/live"}
    urls = {key: everything.outputs[key] for key in ("websocketUrl", "uploadUrl", "resultsUrl")}
    issuer = f"https://{everything.one('aws:cognito/userPool:UserPool').outputs['endpoint']}"
    client_id = everything.outputs["userPoolClientId"]
    assert settings(everything) == {
        **urls,
        "mediaTypes": everything.outputs["documentMediaTypes"],
        "signIn": {"issuer": issuer, "clientId": client_id},
    }


@pytest.mark.parametrize(
    ("audiences", "audience"), [("page,phone", "page"), ("phone,page", "page"), ("api,phone", "api")]
)
def test_a_page_signs_people_in_at_the_issuer_whose_tokens_the_stack_takes(audiences: str, audience: str) -> None:
    signing = {"authorization": "JWT", "jwtIssuer": "https://issuer.example.com/Pool", "siteClientId": "page"}
    page = {"site": "true", "jwtTokenSource": "querystring", "jwtAudience": audiences, "dataTraceEnabled": "false"}
    graph = run_main("dev", {**page, **signing})
    said = settings(graph)
    assert said["signIn"] == {
        "issuer": "https://issuer.example.com/Pool",
        "clientId": "page",
        # Its ID tokens are for itself alone.
        "audience": audience,
    }
    assert said["tokenTransport"] == "query"
    assert " https://issuer.example.com;" in policy_of(graph)["contentSecurityPolicy"]["contentSecurityPolicy"]
    assert graph.warnings == []


def test_a_pool_sends_people_back_to_a_site_whose_name_is_known() -> None:
    name = {"siteDomainName": "progress.example.com", "siteCertificateArn": CERTIFICATE}
    for urls in ("[]", '["https://progress.example.com/"]'):
        graph = run_main("dev", {**EVERYTHING, "userPoolCallbackUrls": urls, **name})
        client = graph.one("UserPoolClient").inputs
        assert client["callbackUrls"] == client["logoutUrls"] == ["https://progress.example.com/"]
        assert not [each for each in graph.warnings if "sends people back" in each]


def test_what_can_change_is_asked_for_again_and_the_rest_is_kept_for_ever(graph: Graph) -> None:
    caching = {key: each.inputs["cacheControl"] for key, each in objects(graph).items()}
    assert {key for key, control in caching.items() if control == "no-cache"} == {"index.html", "config.json"}
    others = {key for key in caching if key not in ("index.html", "config.json")}
    assert {caching[key] for key in others} == {"public, max-age=31536000, immutable"}
    assert len({key.split("/")[0] for key in others}) == 1, "a relative import stays in the folder"
    assert all(re.match(r"assets-[0-9a-f]{16}/", key) for key in others)


def test_every_link_and_import_of_the_page_leads_to_a_file_that_is_there(graph: Graph) -> None:
    there = objects(graph)
    index = there["index.html"].inputs["content"]
    links = [each for each in re.findall(r'(?:href|src)="([^"#]+)"', index) if ":" not in each]
    assert {link.rpartition("/")[2] for link in links} >= {"app.js", "styles.css", "favicon.svg"}
    assert [link for link in links if link not in there] == []
    for key, each in there.items():
        assert each.inputs["content"], key
        for path in re.findall(r'^(?:import|export) .*from "(\.[^"]+)"', each.inputs["content"], re.MULTILINE):
            folder = key.rpartition("/")[0]
            target = f"{folder}/{path.removeprefix('./')}"
            assert target in there, f"{key} imports {path}"


def test_files_have_the_types_without_which_a_browser_refuses_them(graph: Graph) -> None:
    types = {key.rpartition(".")[2]: each.inputs["contentType"] for key, each in objects(graph).items()}
    assert types == {
        "html": "text/html; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
        "json": "application/json",
    }


def test_a_new_page_asks_for_files_that_are_there_already(graph: Graph) -> None:
    index = objects(graph)["index.html"]
    others = {each.name for each in graph.of("BucketObjectv2")} - {index.name}
    assert others <= graph.before(index)


def test_the_folder_is_named_after_every_file_in_it() -> None:
    files = {"app.js": "1", "client/index.js": "2"}
    folder = Page("", files).folder
    assert Page("", dict(reversed(files.items()))).folder == folder, "the order of a directory says nothing"
    changed = [{**files, "app.js": "3"}, {**files, "more.js": ""}, {"app.js": "1"}, {"other.js": "1"}]
    assert folder not in [Page("", each).folder for each in changed]


def test_only_links_to_the_pages_own_files_are_moved() -> None:
    index = '<a href="#top"></a><a href="https://example.com/app.js"></a><script src="app.js"></script>'
    page = Page(index, {"app.js": ""})
    assert page.index == index.replace('src="app.js"', f'src="{page.folder}/app.js"')


def test_the_page_is_read_as_it_is_in_the_repository() -> None:
    page = Page.read(PROJECT_ROOT / "web")
    assert page.assets["client/index.js"] == (PROJECT_ROOT / "web/client/index.js").read_text("utf-8")
    assert not [path for path in page.assets if path.endswith((".json", ".md", ".ts"))]


@pytest.mark.parametrize(("disposable", "kept"), [(False, {"site-bucket", "site-distribution"}), (True, set())])
def test_a_stack_that_is_not_disposable_keeps_the_url_of_its_site(disposable: bool, kept: set[str]) -> None:
    graph = site(disposable=disposable)
    assert {each.name for each in graph if each.protect and each.name.startswith("site")} == kept


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"site": "true", "siteDomainName": "a.example.com"}, "siteDomainName needs siteCertificateArn"),
        ({"site": "true", "siteCertificateArn": CERTIFICATE}, "siteCertificateArn needs siteDomainName"),
    ],
    ids=["name", "certificate"],
)
def test_half_a_site_is_refused(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run_main("dev", settings)


TOKENS = {"authorization": "JWT", "jwtIssuer": "https://issuer.example.com", "jwtAudience": "api"}


@pytest.mark.parametrize(
    ("config", "cure"),
    [
        ({"authorization": "AWS_IAM"}, "pulumi config set docprogress:authorization JWT --stack dev"),
        (TOKENS, "pulumi config set docprogress:siteClientId my-client-id --stack dev"),
        (
            EVERYTHING,
            "pulumi config set --path 'docprogress:userPoolCallbackUrls[1]' "
            '"$(pulumi stack output siteUrl --stack dev)" --stack dev',
        ),
    ],
    ids=["signatures", "another issuer", "pool"],
)
def test_a_page_that_nobody_can_sign_in_to_is_warned_of(config: dict[str, str], cure: str) -> None:
    def warned(**more: str) -> list[str]:
        warnings = run_main("dev", {"dataTraceEnabled": "false", **config, **more}).warnings
        return [each for each in warnings if "site of stack" in each]

    (warning,) = warned(site="true")
    assert warning.splitlines()[-1].strip() == cure
    assert warned(site="false") == []


def test_a_pool_that_knows_the_sites_address_needs_no_warning(dev: Graph) -> None:
    urls = '["https://app.example.com/", "https://d111111abcdef8.cloudfront.net/"]'
    for graph in (dev, run_main("dev", {**EVERYTHING, "userPoolCallbackUrls": urls})):
        assert not [each for each in graph.warnings if "site of stack" in each]
