"""The authorities that a TLS connection to API Gateway is verified against: the system's, the likely ones first.

Reading a system's 140 authorities takes a small Lambda a tenth of a second; AWS's endpoints chain to five of them.
"""

from __future__ import annotations

import binascii
import ssl
from pathlib import Path

# https://www.amazontrust.com/repository/
_NAMES = (b"Amazon Root CA ", b"Starfield Services Root Certificate Authority - G2")
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


def likely_context() -> ssl.SSLContext:
    """Trust the system's authorities that AWS uses, or all of them where those are not in a file of their own.

    A server that another authority has signed, such as a company's proxy, fails to verify: then `trust_all_of_system`.
    """
    cafile = ssl.get_default_verify_paths().cafile
    try:
        likely = _likely(Path(cafile).read_bytes()) if cafile else b""
        # Without data this loads all the system's authorities; all else is the same.
        return ssl.create_default_context(cadata=likely or None)
    except (OSError, ValueError):  # OpenSSL passes over what it cannot read of a file
        return ssl.create_default_context()


def trust_all_of_system(context: ssl.SSLContext) -> None:
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)


def _likely(bundle: bytes) -> bytes:
    """The certificates of a PEM file that carry one of the names, in DER."""
    parts = (part.partition(_END) for part in bundle.split(_BEGIN)[1:])
    found = (binascii.a2b_base64(certificate) for certificate, end, _ in parts if end)
    return b"".join(der for der in found if any(name in der for name in _NAMES))
