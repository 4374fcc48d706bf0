import io
import re
import struct
import zlib
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, PngImagePlugin

from pipeline.imaging.metadata import embed, extract, is_signed, sidecar, strip

RECORD: dict[str, object] = {"task": "posters/a@2", "prompt": 'A "poster" <b>&amp; café</b> ]]> \x00\u202e', "n": 1}
EXIF = Image.Exif()
EXIF[0x010E] = "a description"
KINDS = [
    pytest.param("PNG", "image/png", {}, "RGB", id="png"),
    pytest.param("PNG", "image/png", {}, "P", id="png-palette"),
    pytest.param("JPEG", "image/jpeg", {}, "RGB", id="jpeg"),
    pytest.param("JPEG", "image/jpeg", {"progressive": True, "exif": EXIF}, "RGB", id="jpeg-exif"),
    pytest.param("WEBP", "image/webp", {"quality": 60}, "RGB", id="webp"),
    pytest.param("WEBP", "image/webp", {"lossless": True}, "RGB", id="webp-lossless"),
    pytest.param("WEBP", "image/webp", {"lossless": True}, "RGBA", id="webp-lossless-alpha"),
    pytest.param("WEBP", "image/webp", {"quality": 60}, "RGBA", id="webp-alpha"),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def picture(form: str, options: dict[str, object], mode: str, side: int = 37) -> bytes:
    image = Image.radial_gradient("L").resize((side, side + 4)).convert("RGB").convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def xmp_of(data: bytes) -> ElementTree.Element:
    """The packet as a reader who is not us finds and parses it."""
    with Image.open(io.BytesIO(data)) as image:
        found = image.info["xmp"]
    return ElementTree.fromstring(found.strip(b"\0"))


def is_same_picture(one: bytes, other: bytes) -> bool:
    with Image.open(io.BytesIO(one)) as first, Image.open(io.BytesIO(other)) as second:
        same_head = (first.size, first.mode, first.format) == (second.size, second.mode, second.format)
        return same_head and ImageChops.difference(first.convert("RGBA"), second.convert("RGBA")).getbbox() is None


@pytest.mark.parametrize(("form", "mime", "options", "mode"), KINDS)
def test_a_record_comes_back_and_no_pixel_changes(form, mime, options, mode) -> None:
    before = picture(form, options, mode)
    after = embed(before, mime, RECORD)
    assert extract(before) is None
    assert extract(after) == RECORD
    assert is_same_picture(before, after)


@pytest.mark.parametrize(("form", "mime", "options", "mode"), KINDS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=st.dictionaries(st.text(), json_values, max_size=4), side=st.integers(1, 40))
def test_any_record_in_any_picture_keeps_its_pixels(form, mime, options, mode, record, side) -> None:
    before = picture(form, options, mode, side)
    after = embed(before, mime, record)
    assert extract(after) == record
    assert is_same_picture(before, after)


@pytest.mark.parametrize(("form", "mime", "options", "mode"), KINDS)
def test_another_reader_finds_the_digital_source_type(form, mime, options, mode) -> None:
    root = xmp_of(embed(picture(form, options, mode), mime, RECORD))
    source = root.find(".//{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    assert source is not None
    assert source.text == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@pytest.mark.parametrize(("form", "mime", "options", "mode"), KINDS)
@pytest.mark.parametrize("length", [3, 60_000])
def test_a_second_record_takes_the_place_of_the_first(form, mime, options, mode, length: int) -> None:
    before = picture(form, options, mode)
    once = embed(before, mime, RECORD)
    twice = embed(embed(before, mime, {"prompt": "x" * length}), mime, RECORD)
    assert twice == once


def test_a_record_of_more_than_64_kb_is_refused_by_a_jpeg() -> None:
    before = picture("JPEG", {}, "RGB")
    assert extract(embed(before, "image/jpeg", {"prompt": "p" * 64_000})) == {"prompt": "p" * 64_000}
    with pytest.raises(ValueError, match="64 KB"):
        embed(before, "image/jpeg", {"prompt": "p" * 66_000})


FOREIGN = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="uuid:1" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:format>kept</dc:format></rdf:Description></rdf:RDF></x:xmpmeta>'
    '<?xpacket end="w"?>'
)


def png_with(text: str, *, is_compressed: bool) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", text, zip=is_compressed)
    return picture("PNG", {"pnginfo": info}, "RGB")


@pytest.mark.parametrize(
    ("before", "mime"),
    [
        pytest.param(png_with(FOREIGN, is_compressed=False), "image/png", id="png"),
        pytest.param(png_with(FOREIGN, is_compressed=True), "image/png", id="png-compressed"),
        pytest.param(picture("JPEG", {"xmp": FOREIGN.encode()}, "RGB"), "image/jpeg", id="jpeg"),
        pytest.param(picture("WEBP", {"xmp": FOREIGN.encode()}, "RGB"), "image/webp", id="webp"),
    ],
)
def test_what_others_wrote_stays(before: bytes, mime: str) -> None:
    after = embed(before, mime, RECORD)
    assert extract(after) == RECORD
    assert "kept" in [element.text for element in xmp_of(after).iter()]
    assert after.count(b'rdf:about="uuid:1"') == 2


def test_no_byte_of_the_picture_data_changes() -> None:
    before = picture("PNG", {}, "RGB")
    after = embed(before, "image/png", RECORD)
    place = before.index(b"IDAT") - 4
    assert after.startswith(before[:place])
    assert after.endswith(before[place:])


@pytest.mark.parametrize(
    ("data", "mime"),
    [
        (b"", "image/png"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (picture("PNG", {}, "RGB")[:-20], "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"\xff\xd8\xff\xe1\xff\xff12", "image/jpeg"),
        (b"RIFF\xff\xff\xff\x7fWEBPVP8 ", "image/webp"),
        (b"RIFF\x04\0\0\0WEBP", "image/webp"),
        (b"GIF89a", "image/gif"),
    ],
)
def test_what_is_not_a_whole_image_is_refused(data: bytes, mime: str) -> None:
    with pytest.raises(ValueError, match=r"not a |no place|a PNG |a JPEG |a WebP "):
        embed(data, mime, {})
    assert extract(data) is None


@given(st.binary(max_size=200), st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x40\0\0\0WEBP", b""]))
def test_extract_never_raises(data: bytes, head: bytes) -> None:
    assert extract(head + data) is None


def test_a_compressed_packet_cannot_explode() -> None:
    body = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<imgpipe:Record>" + b"x" * 50_000_000)
    chunk = struct.pack(">I4s", len(body), b"iTXt") + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(b"iTXt")))
    before = picture("PNG", {}, "RGB")
    assert extract(before[:33] + chunk + before[33:]) is None


JUMBF = struct.pack(">I4sI4s", 60, b"jumb", 30, b"jumd") + b"c2pa\0\x11\0\x10" + b"\x80\0\0\xaa" + b"c2pa\0" * 4


def signed(form: str) -> bytes:
    """A picture with a C2PA manifest where each format has it."""
    data = picture(form, {}, "RGB")
    if form == "PNG":
        chunk = struct.pack(">I4s", len(JUMBF), b"caBX") + JUMBF + struct.pack(">I", zlib.crc32(b"caBX" + JUMBF))
        return data[:33] + chunk + data[33:]
    if form == "JPEG":
        body = b"JP" + struct.pack(">HI", 1, 1) + JUMBF
        return data[:2] + b"\xff\xeb" + struct.pack(">H", len(body) + 2) + body + data[2:]
    chunk = b"C2PA" + struct.pack("<I", len(JUMBF)) + JUMBF + b"\0" * (len(JUMBF) % 2)
    return b"RIFF" + struct.pack("<I", len(data) - 8 + len(chunk)) + data[8:] + chunk


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_signature_is_seen_where_the_format_has_it(form: str) -> None:
    data = signed(form)
    Image.open(io.BytesIO(data)).load()
    assert is_signed(data)
    assert strip(data, f"image/{form.lower()}") == strip(picture(form, {}, "RGB"), f"image/{form.lower()}")
    assert not is_signed(picture(form, {}, "RGB"))
    assert not is_signed(embed(picture(form, {}, "RGB"), f"image/{form.lower()}", {"prompt": "c2pa caBX C2PA"}))


def test_other_application_data_of_a_jpeg_is_no_signature() -> None:
    data = picture("JPEG", {}, "RGB")
    hdr = b"\xff\xeb" + struct.pack(">H", 22) + b"HDR_RI ver=11 c2pa  "
    assert not is_signed(data[:2] + hdr + data[2:])


@given(st.binary(max_size=200))
def test_anything_at_all_is_signed_or_not(data: bytes) -> None:
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF\x80\0\0\0WEBP"):
        assert is_signed(start + data) in (True, False)


def test_a_record_is_read_from_the_file_beside_an_image() -> None:
    assert extract(sidecar(RECORD).data) == RECORD
    assert sidecar(RECORD).mark in sidecar(RECORD).data


def written_by_exiftool(packet: bytes, *, as_attribute: bool) -> bytes:
    """A packet as ExifTool 12.57 writes it anew when it adds a rating: single quotes, a block a namespace."""
    (record,) = re.findall(rb"<imgpipe:Record>(.*?)</imgpipe:Record>", packet)
    space = b"xmlns:imgpipe='urn:x-imgpipe:1.0#'"
    ours = b">\n  <imgpipe:Record>" + record + b"</imgpipe:Record>\n </rdf:Description>"
    if as_attribute:
        ours = b"\n  imgpipe:Record='" + record + b"'/>"
    return (
        b"<?xpacket begin='\xef\xbb\xbf' id='W5M0MpCehiHzreSzNTczkc9d'?>\n<x:xmpmeta xmlns:x='adobe:ns:meta/'>\n"
        b"<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>\n <rdf:Description rdf:about='uuid:1'\n  "
        + space
        + ours
        + b"\n <rdf:Description rdf:about='uuid:1'\n  xmlns:xmp='http://ns.adobe.com/xap/1.0/'>\n"
        b"  <xmp:Rating>5</xmp:Rating>\n </rdf:Description>\n</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end='w'?>"
    )


@pytest.mark.parametrize("as_attribute", [False, True])
def test_a_record_that_exiftool_wrote_anew_is_read_and_replaced(as_attribute: bool) -> None:
    rated = written_by_exiftool(sidecar({"n": 1}).data, as_attribute=as_attribute)
    assert extract(rated) == {"n": 1}
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", rated.decode())
    again = embed(picture("PNG", {"pnginfo": info}, "RGB"), "image/png", {"n": 2})
    assert extract(again) == {"n": 2}
    tree = xmp_of(again)
    rdf = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
    assert {block.get(f"{rdf}about") for block in tree.iter(f"{rdf}Description")} == {"uuid:1"}
    assert tree.find(".//{http://ns.adobe.com/xap/1.0/}Rating").text == "5"
    assert b'{"n":1}' not in again
