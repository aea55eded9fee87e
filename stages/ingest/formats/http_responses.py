"""Responses of web servers as crawlers store them: codings undone, text decoded (RFC 9110, RFC 9112).

- `parse_response`: status, headers and payload
- `decoded_payload`: the payload without transfer and content codings
- `decoded_text`: text by the charset of the Content-Type

Crawlers often undo codings but keep their headers, so a payload that does not have the stated coding is used as it is.
"""

import codecs
import io
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import brotli

from stages.ingest.formats.warc_records import parse_headers
from stages.ingest.streams.decompression import DamagedFileError, expanded

OUTPUT_BYTES = 1 << 20
_STATUS = re.compile(rb"[A-Za-z]+(?:/\d(?:\.\d)?)?[ \t]+(\d{3})\b")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CHUNK = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_CHUNK_END = re.compile(rb"\r?\n")
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<")
_CHARSET = re.compile(r"charset=\s*[\"']?([\w.:-]+)", re.I)
_WEB_CODECS = re.compile(
    r"utf-8|utf-16|utf-16-[lb]e|cp866|cp874|cp932|cp949|cp125\d|iso8859-\d+|koi8-[ru]|mac-roman|mac-cyrillic|gb18030|big5"
    r"|big5hkscs|euc_jp|iso2022_jp"
)
"""Python's names of the encodings of the WHATWG Encoding standard. Python has other codecs, such as `undefined` (which
always raises), `punycode` and `idna` (for names), `unicode_escape`, `base64` and `rot13`."""
_SUPERSETS = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
    "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "utf-8-sig": "utf-8",
}  # fmt: skip
"""Encodings of pages with these labels (WHATWG Encoding standard)."""


class PayloadError(Exception):
    """A payload that cannot be read."""

    def __init__(self, reason: str, detail: str) -> None:
        """Describe the failure by a reason of the rejects table and a detail."""
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class HttpResponse:
    """A response, without its informational predecessors (1xx)."""

    status: int
    headers: Mapping[str, str]
    """By names in lower case."""
    payload: bytes


def parse_response(message: bytes) -> HttpResponse | None:
    """Response of a server; None for other content."""
    while status := _STATUS.match(message):
        end = _HEAD_END.search(message)
        head, payload = (message[: end.start()], message[end.end() :]) if end else (message, b"")
        if not status[1].startswith(b"1"):
            return HttpResponse(int(status[1]), parse_headers(head), payload)
        message = payload
    return None


def decoded_payload(response: HttpResponse, max_bytes: int, *, is_truncated: bool) -> bytes:
    """Payload without its codings.

    Args:
        response: the response.
        max_bytes: limit of the result.
        is_truncated: whether the crawler cut the payload on purpose, so that its end may be missing.

    Raises:
        PayloadError: `too_long`, `unknown_coding` or `broken_coding`.
    """
    payload = response.payload
    codings = [*_codings(response, "content-encoding"), *_codings(response, "transfer-encoding")]
    for coding in reversed(codings):
        if coding == "chunked":
            payload = _dechunked(payload, is_truncated)
        else:
            payload = _undone(payload, coding, max_bytes, is_truncated)
    if len(payload) > max_bytes:
        raise PayloadError("too_long", f"a page of {len(payload):,} bytes")
    return payload


def decoded_text(page: bytes, content_type: str) -> bytes | str:
    """Text by a byte order mark or the charset of the Content-Type; otherwise the bytes, which may name theirs."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if page.startswith(mark):
            return page.decode(encoding, "replace").removeprefix("\ufeff")
    declared = _CHARSET.search(content_type)
    try:
        name = codecs.lookup(declared[1]).name if declared else ""
        encoding = _SUPERSETS.get(name, name)
        return page.decode(encoding) if _WEB_CODECS.fullmatch(encoding) else page
    except (LookupError, ValueError):
        return page


def _codings(response: HttpResponse, header: str) -> list[str]:
    """Names of the codings in the order in which they were applied."""
    names = [name.strip().lower() for name in response.headers.get(header, "").split(",")]
    return [name for name in names if name not in ("", "identity", "none")]


def _dechunked(data: bytes, is_truncated: bool) -> bytes:
    position, chunks = 0, []
    while (size := _CHUNK.match(data, position)) is not None and int(size[1], 16):
        end = size.end() + int(size[1], 16)
        chunks.append(data[size.end() : end])
        if end > len(data):
            if not is_truncated:
                raise PayloadError("broken_coding", f"a chunk of {int(size[1], 16):,} bytes ends early")
            return b"".join(chunks)
        after = _CHUNK_END.match(data, end)
        position = after.end() if after else end
    if size is None and position < len(data) and not is_truncated:
        if not chunks:
            return data  # the crawler removed the coding and kept the header
        raise PayloadError("broken_coding", f"no chunk begins at byte {position:,} of the page")
    return b"".join(chunks) if chunks or size else data


def _undone(data: bytes, coding: str, max_bytes: int, is_truncated: bool) -> bytes:
    if _MARKUP.match(data) or not data:
        return data  # the crawler removed the coding and kept the header
    if coding in ("gzip", "x-gzip", "zstd"):
        kind = "gzip" if coding != "zstd" else coding
        return _collected(expanded(io.BytesIO(data), kind), max_bytes, is_truncated)
    if coding == "deflate":
        has_header = len(data) > 1 and data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
        return _collected(_inflated(data, 15 if has_header else -15), max_bytes, is_truncated)
    if coding == "br":
        return _collected(_brotli(data), max_bytes, is_truncated)
    raise PayloadError("unknown_coding", f"the coding {coding[:40]!r}")


def _collected(chunks: Iterator[bytes], max_bytes: int, is_truncated: bool) -> bytes:
    data = bytearray()
    try:
        for chunk in chunks:
            data += chunk
            if len(data) > max_bytes:
                raise PayloadError("too_long", f"a page of more than {max_bytes:,} bytes")
    except (DamagedFileError, zlib.error, brotli.error) as error:
        ends_early = isinstance(error, DamagedFileError) and error.ends_early
        is_whole = isinstance(error, DamagedFileError) and not error.ends_early and error.is_after_member
        if not (is_whole or (ends_early and is_truncated)):
            raise PayloadError("broken_coding", f"{error}"[:200]) from error
    return bytes(data)


def _inflated(data: bytes, window_bits: int) -> Iterator[bytes]:
    decoder = zlib.decompressobj(window_bits)
    yield decoder.decompress(data, OUTPUT_BYTES)
    while decoder.unconsumed_tail:
        yield decoder.decompress(decoder.unconsumed_tail, OUTPUT_BYTES)
    if not decoder.eof:
        raise DamagedFileError("the page ends inside its coding", len(data), ends_early=True)


def _brotli(data: bytes) -> Iterator[bytes]:
    decoder = brotli.Decompressor()
    chunk = decoder.process(data, output_buffer_limit=OUTPUT_BYTES)
    while chunk:
        yield chunk
        chunk = decoder.process(b"", output_buffer_limit=OUTPUT_BYTES)
    if not decoder.is_finished():
        raise DamagedFileError("the page ends inside its coding", len(data), ends_early=True)
