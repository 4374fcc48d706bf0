"""A record inside an XMP packet, beside what others wrote there.

In: a record (anything JSON can say) and perhaps an existing packet. Out: a packet that says that a trained model made
the picture (IPTC Digital Source Type) and carries the record. It knows no image format.
"""

import json
import re
from collections.abc import Callable
from html import escape, unescape

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_OURS = "urn:x-imgpipe:1.0#"
# IPTC Photo Metadata Standard, Digital Source Type
_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
MARK = _OURS.encode()  # stands in whatever carries a record of ours
_HEAD = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'  # XMP specification part 1, 7.3.2
_TAIL = '<?xpacket end="w"?>'
_END = "</rdf:RDF>"
_BLOCK = re.compile(
    rf'<rdf:Description rdf:about="[^"]*" xmlns:imgpipe="{re.escape(_OURS)}".*?</rdf:Description>', re.S
)
_RECORD = re.compile(r'<imgpipe:Record>([^<]*)</imgpipe:Record>|imgpipe:Record="([^"]*)"')
_ABOUT = re.compile(r'rdf:about="([^"]*)"')


def packet(record: dict[str, object], existing: bytes | None = None) -> bytes:
    """Return a packet with the record; the statements of `existing` stay, an earlier record of ours does not."""
    return _merged(existing, lambda around: _description(around, _record(record)))


def note_packet(guid: str, existing: bytes | None = None) -> bytes:
    """Return a packet that only says where the record is: in the extended XMP of that GUID."""
    note = f'<xmpNote:HasExtendedXMP xmlns:xmpNote="http://ns.adobe.com/xmp/note/">{guid}</xmpNote:HasExtendedXMP>'
    return _merged(existing, lambda around: _description(around, note))


def extension(record: dict[str, object]) -> bytes:
    """Return the serialised record for extended XMP: the same tree without the packet's wrapper."""
    return _tree(_description("", _record(record))).encode()


def read(found: bytes) -> dict[str, object] | None:
    """Return the record of a packet or an extension; None when there is none of ours."""
    match = _RECORD.search(found.decode("utf-8", "replace"))
    if match is None:
        return None
    try:
        record = json.loads(unescape(match[1] if match[1] is not None else match[2]))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def is_ours(found: bytes) -> bool:
    """Tell whether a packet, or the first piece of an extension, has a record of ours."""
    return MARK in found


def _merged(existing: bytes | None, describe: Callable[[str], str]) -> bytes:
    text = "" if existing is None else existing.decode("utf-8", "replace")
    text = _BLOCK.sub("", text)
    place = text.rfind(_END)
    if place < 0:
        return (_HEAD + _tree(describe("")) + _TAIL).encode()
    return (text[:place] + describe(text) + text[place:]).encode()


def _description(around: str, body: str) -> str:
    """Return our block: it speaks of the same picture as the packet around it, and repeats no statement of it."""
    about = _ABOUT.search(around)
    is_said = "DigitalSourceType" in around
    source = f"<Iptc4xmpExt:DigitalSourceType>{_SOURCE}</Iptc4xmpExt:DigitalSourceType>"
    return (
        f'<rdf:Description rdf:about="{about[1] if about else ""}" xmlns:imgpipe="{_OURS}" xmlns:Iptc4xmpExt="{_IPTC}">'
        f"{'' if is_said else source}{body}</rdf:Description>"
    )


def _record(record: dict[str, object]) -> str:
    """Return the record as ASCII JSON, so that no control character needs XML's consent."""
    text = json.dumps(record, separators=(",", ":"), sort_keys=True)
    return f"<imgpipe:Record>{escape(text, quote=False)}</imgpipe:Record>"


def _tree(description: str) -> str:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">{description}{_END}</x:xmpmeta>'
