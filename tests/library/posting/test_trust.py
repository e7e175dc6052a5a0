"""Which authorities a server is verified against. The handshakes themselves are in test_fan_out."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from benchmarks.certificate import write_certificate
from docprogress.posting.trust import likely_context, trust_all_of_system


def names(context: ssl.SSLContext) -> set[str]:
    return {value for cert in context.get_ca_certs() for ((key, value),) in cert["subject"] if key == "commonName"}


def bundle(tmp_path: Path, *common_names: str) -> Path:
    path = tmp_path / "bundle.pem"
    path.write_bytes(b"".join(write_certificate(tmp_path, common_name=name).read_bytes() for name in common_names))
    return path


def test_the_authorities_that_aws_uses_are_loaded_first_and_the_others_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle(tmp_path, "Other", "Amazon Root CA 1", "Another")))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    context = likely_context()
    assert names(context) == {"Amazon Root CA 1"}
    trust_all_of_system(context)
    assert names(context) == {"Other", "Amazon Root CA 1", "Another"}


@pytest.mark.parametrize("broken", [b"", b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n"])
def test_a_bundle_without_them_is_loaded_as_python_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bytes
) -> None:
    path = bundle(tmp_path, "A company's proxy")
    path.write_bytes(path.read_bytes() + broken)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    assert names(likely_context()) == names(ssl.create_default_context())


def test_no_check_is_weaker_than_pythons_own() -> None:
    ours, pythons = likely_context(), ssl.create_default_context()
    for name in ("verify_mode", "check_hostname", "verify_flags", "minimum_version", "options"):
        assert getattr(ours, name) == getattr(pythons, name), name
