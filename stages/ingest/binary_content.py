"""Content that is no text, whatever the name of its file says.

- `binary_kind`: what a file is, by its first bytes
- `is_pointer`: whether a file is a Git LFS pointer to another one
- `is_binary_text`: whether decoded bytes are no text
"""

import re
from collections.abc import Mapping

HEAD_BYTES = 1 << 10
TAR_MAGIC = 257
"""Offset of the magic bytes in the first block of a tar archive."""
_KINDS: Mapping[bytes, str] = {
    b"PK\x03\x04": "a ZIP archive or an office document", b"PK\x05\x06": "an empty ZIP archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive", b"Rar!\x1a\x07": "a RAR archive", b"!<arch>\n": "an archive of ar",
    b"\x04\x22\x4d\x18": "compressed by LZ4", b"\xff\x06\x00\x00sNaPpY": "compressed by Snappy",
    b"\x1f\x9d": "compressed by compress", b"\x1f\x8b\x08": "compressed by gzip several times",
    b"%PDF-": "a PDF document", b"{\\rtf": "an RTF document", b"%!PS": "a PostScript document",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old office document",
    b"\x89PNG\r\n\x1a\n": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"GIF87a": "a GIF image",
    b"GIF89a": "a GIF image", b"II*\0": "a TIFF image", b"MM\0*": "a TIFF image", b"RIFF": "a RIFF file",
    b"OggS": "an Ogg file", b"fLaC": "a FLAC file", b"ID3": "an MP3 file",
    b"\x7fELF": "a program", b"MZ\x90\0": "a program", b"\xca\xfe\xba\xbe": "a program",
    b"\xcf\xfa\xed\xfe": "a program",
    b"SQLite format 3\0": "a SQLite database", b"PAR1": "a Parquet file", b"ARROW1": "an Arrow file",
    b"FEA1": "a Feather file of version 1", b"ORC": "an ORC file", b"Obj\x01": "an Avro file",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file", b"\x93NUMPY": "a NumPy array", b"\x80\x04\x95": "a Python pickle",
}  # fmt: skip
"""Magic bytes; those of letters alone count only if bytes of no text follow (`_AMBIGUOUS`)."""
_AMBIGUOUS = (b"RIFF", b"OggS", b"fLaC", b"ID3", b"ORC", b"PAR1", b"ARROW1", b"FEA1", b"II*\0", b"MM\0*")
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_CONTROLS = re.compile(r"[\0-\x07\x0e-\x19\x1c-\x1f\x7f]")
"""Without tabs, line ends, form feeds, backspaces (overstrikes), escapes (colors of terminals) and the mark of CP/M."""
MAX_CONTROL_SHARE = 0.05
"""Random bytes have 0.1; text with a NUL here and there is far below."""
MIN_CONTROLS = 8
SAMPLE_CHARACTERS = 1 << 16
POINTER = b"version https://git-lfs.github.com/spec/v1\n"
MAX_POINTER_BYTES = 1 << 10


def binary_kind(head: bytes) -> str | None:
    """Kind of a file, such as `a PDF document`; None if its first bytes may be those of a text."""
    if head[TAR_MAGIC : TAR_MAGIC + 5] == b"ustar":
        return "a tar archive"
    for magic, kind in _KINDS.items():
        if head.startswith(magic) and (magic not in _AMBIGUOUS or _CONTROL.search(head, 0, 64)):
            return kind
    return None


def is_pointer(head: bytes) -> bool:
    """Whether a file is the pointer that Git has in place of a file that Git LFS stores."""
    return head.startswith(POINTER) and len(head) < MAX_POINTER_BYTES


def is_binary_text(text: str) -> bool:
    """Whether decoded bytes have too many control characters for text."""
    sample = text[:SAMPLE_CHARACTERS]
    return len(_CONTROLS.findall(sample)) > max(MAX_CONTROL_SHARE * len(sample), MIN_CONTROLS)
