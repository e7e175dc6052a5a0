"""Small PDFs built from nothing, byte by byte, so that a test can leave out or break any of it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
RESOURCES = b"/Font<</F1 4 0 R>>"


def stream(data: bytes, entries: bytes = b"", *, deflated: bool = False) -> bytes:
    if deflated:
        data, entries = zlib.compress(data, 9), entries + b"/Filter/FlateDecode"
    return b"<<%s/Length %d>>stream\n%s\nendstream" % (entries, len(data), data)


def text(words: bytes) -> bytes:
    return stream(b"BT /F1 12 Tf 20 20 Td (%s) Tj ET" % words)


def page(contents: int, resources: bytes = RESOURCES) -> bytes:
    return b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Resources<<%s>>/Contents %d 0 R>>" % (resources, contents)


def one_page(contents: bytes, resources: bytes = RESOURCES, **more: bytes) -> dict[int, bytes]:
    """The objects of a PDF. more: those that the resources name, `o10` for 10."""
    return {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        3: page(5, resources),
        4: FONT,
        5: contents,
        **{int(name[1:]): body for name, body in more.items()},
    }


def built(objects: Mapping[int, bytes], trailer: bytes = b"") -> bytes:
    content, offsets = bytearray(b"%PDF-1.7\n"), dict[int, int]()
    for number, body in objects.items():
        offsets[number] = len(content)
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start, size = len(content), max(objects) + 1
    content += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        content += b"%010d 00000 n \n" % offsets[number] if number in offsets else b"0000000000 00000 f \n"
    content += b"trailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, start)
    return bytes(content)


def doubling_forms(depth: int, leaf: bytes) -> dict[int, bytes]:
    """Each form draws the next one twice: the page draws the last one 2^depth times."""
    forms = {}
    for number in range(10, 10 + depth):
        last = number == 9 + depth
        resources = RESOURCES if last else RESOURCES + b"/XObject<</X %d 0 R>>" % (number + 1)
        body = leaf if last else b"/X Do /X Do"
        forms[f"o{number}"] = stream(body, b"/Type/XObject/Subtype/Form/BBox[0 0 300 300]/Resources<<%s>>" % resources)
    return one_page(stream(b"/X Do"), RESOURCES + b"/XObject<</X 10 0 R>>", **forms)
