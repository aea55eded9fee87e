"""Files that match a glob on any fsspec URL, with size, fingerprint and format, and those that are passed over.

- `list_files`: the listing of one source
- `check_unchanged`: compares a file that was read with its state in the listing
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from data_schemas.errors import EnvironmentProblem, InputDataError
from data_schemas.public_urls import public_text, public_url
from stages.common.passed_over import NeverInput, PassedOver, sentences, summary, without_double_links
from stages.ingest.config import FormatName, SourceConfig
from stages.ingest.content_formats import format_of_content, is_told_by_content
from stages.ingest.file_formats import ACCEPTED, COMPRESSIONS, format_of
from stages.ingest.streams.byte_streams import opened_filesystem

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
            "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp"}  # fmt: skip
"""Package that implements a protocol for fsspec; those for object stores are optional."""
FINGERPRINTS = (
    "ETag", "etag", "md5Hash", "xet_hash", "blob_id", "mtime", "LastModified", "Last-Modified", "last_modified",
    "created",
)  # fmt: skip
"""Names of checksums and modification times in filesystems, best first."""
REQUESTS_AT_ONCE = 16
WILDCARD = r"[*?\[]"
WEB_WILDCARD = r"[*\[]"
"""Without the question mark, which begins the query of a web address."""


class RowGroups(NamedTuple):
    """Consecutive row groups of a Parquet file."""

    first: int
    end: int
    position: int
    """Index of their first row in the file."""
    bytes: int
    """Their share of the file's bytes."""


@dataclass(frozen=True)
class SourceFile:
    """A file of text."""

    url: str
    """To open it; may hold signatures, and is stored nowhere."""
    path: str
    """Relative to the folder above the pattern's first wildcard, so that additional files do not rename others."""
    bytes: int
    """0 if a web server does not report it."""
    fingerprint: str
    """Modification time, ETag or other state that the filesystem reports."""
    format: FormatName | None = None
    """From the source, the name or the content; from the source or the name if omitted."""
    rows: RowGroups | None = None
    """The part of a large file to read; all of it if omitted."""


class FileListing(NamedTuple):
    """The files of a source, sorted by path, and those that are passed over."""

    files: list[SourceFile]
    passed_over: list[PassedOver]


def list_files(source: SourceConfig, store: str = "") -> FileListing:
    """Files that match the source's glob and have an accepted format.

    Args:
        source: the source.
        store: URL of the artifact store, whose files are no input.

    Raises:
        InputDataError: if no file matches, none has an accepted format, or the folder cannot be listed.
        EnvironmentProblem: if the package for the URL's protocol is not installed.
    """
    pattern = public_url(source.path)
    filesystem, root = _opened(source.path)
    try:
        filesystem.invalidate_cache()
        base, infos = _matches(filesystem, root)
        rules = NeverInput(filesystem, root, base, store)
        infos.pop(root, None) if infos.get(root, {}).get("type") == "directory" else None
        reasons = {name: rules.reason(name, info) for name, info in infos.items()}
        names = [name for name, reason in reasons.items() if reason is None]
        reasons |= without_double_links(names, infos)
        names = [name for name in names if reasons[name] is None]
        formats = _formats(filesystem, names, source)
    except Exception as error:  # filesystem packages raise exceptions of their own
        raise InputDataError(
            f"cannot list {pattern}: {type(error).__name__}: {public_text(str(error))}; give a path such as "
            "./my_texts/**/*.jsonl.gz"
        ) from None
    if "**" in root or not re.search(WILDCARD, root):
        reasons = {name: reason for name, reason in reasons.items() if infos[name]["type"] != "directory"}
    reasons |= {name: _unknown(name, infos[name]) for name in names if not formats[name]}
    passed_over = [PassedOver(_path(name, base), reason) for name, reason in sorted(reasons.items()) if reason]
    files = [_file(filesystem, name, base, infos[name], formats[name], source.path) for name in names if formats[name]]
    if not files:
        raise InputDataError(_nothing_matches(pattern, passed_over))
    return FileListing(sorted(files, key=lambda file: file.path), passed_over)


def check_unchanged(file: SourceFile) -> None:
    """Compare the state of a file with the listing.

    Raises:
        InputDataError: if it grew, changed or vanished.
    """
    filesystem, name = opened_filesystem(file.url)
    try:
        filesystem.invalidate_cache()
        info = filesystem.info(name)
    except FileNotFoundError:
        raise InputDataError(_changed(file, "it is gone now")) from None
    except Exception:  # the file itself could be read; a server may not answer requests for its state
        return
    size = int(info.get("size") or 0)
    if size and file.bytes and size != file.bytes:
        raise InputDataError(_changed(file, f"it had {file.bytes:,} bytes then and has {size:,} now"))
    key = file.fingerprint.split(" ")[0]  # a server may report another state of one file than of a folder
    if info.get(key) and _fingerprint({**info, **dict.fromkeys(set(FINGERPRINTS) - {key})}) != file.fingerprint:
        raise InputDataError(_changed(file, "it was written again"))


def _changed(file: SourceFile, change: str) -> str:
    return (
        f"{file.path} changed after its source was listed: {change}; wait until no program writes to the source, "
        "then start again with: headrace run"
    )


def _opened(pattern: str) -> tuple[Any, str]:
    if "://" not in pattern:  # a local name may contain `::`
        local = fsspec.filesystem("file")
        return local, str(local._strip_protocol(pattern))
    try:
        filesystem, root = fsspec.core.url_to_fs(pattern)
    except ImportError as error:
        protocol = pattern.split("://")[0]
        package = PACKAGES.get(protocol)
        command = f"pip install {package}" if package else "install the package that it names"
        raise EnvironmentProblem(
            f"{protocol}:// URLs such as {public_url(pattern)} need a package ({error}): {command}"
        ) from error
    except (OSError, ValueError) as error:
        raise InputDataError(
            f"cannot list {public_url(pattern)}: {public_text(str(error))}; give a path such as "
            "./my_texts/**/*.jsonl.gz"
        ) from None
    return filesystem, str(root)


def _matches(filesystem: Any, root: str) -> tuple[str, dict[str, Any]]:
    """Folder that paths are relative to, and the files of a folder, a single file, or the matches of a glob."""
    if root.startswith(("http://", "https://")):
        return _web_matches(filesystem, root)
    filesystem = _LocalListing() if "file" in filesystem.protocol else filesystem
    if filesystem.isdir(root):
        return root.rstrip("/") + "/", filesystem.find(root, detail=True) | getattr(filesystem, "unreadable", {})
    if filesystem.isfile(root):  # Its name may contain a bracket, which is a wildcard in a glob.
        return root[: root.rfind("/") + 1], {root: filesystem.info(root) | {"type": "file"}}
    return _base(root, WILDCARD), filesystem.glob(root, detail=True) | getattr(filesystem, "unreadable", {})


class _LocalListing(LocalFileSystem):  # type: ignore[misc]
    """The local disk, with the folders that were passed over because they may not be read."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.unreadable: dict[str, Any] = {}

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        """As that of the local disk.

        Raises:
            PermissionError: if the folder may not be read.
        """
        try:
            return super().ls(path, detail=detail, **options)
        except PermissionError:
            self.unreadable[path] = {"name": path, "type": "unreadable folder", "size": 0}
            raise


def _web_matches(filesystem: Any, root: str) -> tuple[str, dict[str, Any]]:
    """As `_matches` on the web, where only a page of links can be listed."""
    if root.endswith("/"):
        names: Sequence[str] = filesystem.find(root)
    else:
        names = filesystem.glob(root) if re.search(WEB_WILDCARD, root.split("?")[0]) else [root]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:  # a page of links has no sizes
        infos = dict(zip(names, pool.map(filesystem.info, names), strict=True))
    folders = {name: info | {"type": "directory"} for name, info in infos.items() if name.endswith("/")}
    return _base(root, WEB_WILDCARD), infos | folders


def _base(root: str, wildcard: str) -> str:
    before = re.split(wildcard, public_url(root), maxsplit=1)[0]
    return before[: before.rfind("/") + 1]


def _path(name: str, base: str) -> str:
    """Bytes of the name that are not UTF-8, which no table can hold, as `\\xff`."""
    return public_url(name).removeprefix(base).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _file(
    filesystem: Any, name: str, base: str, info: Mapping[str, Any], kind: FormatName | None, pattern: str
) -> SourceFile:
    first, chain, rest = pattern.partition("::")
    url = filesystem.unstrip_protocol(name) + (chain + rest if "://" in first else "")
    return SourceFile(url, _path(name, base), int(info["size"] or 0), _fingerprint(info), kind)


def _fingerprint(info: Mapping[str, Any]) -> str:
    if info.get("islink"):  # its own times are not those of the file
        info = dict(info) | {"mtime": Path(info["name"]).stat().st_mtime}
    key = next((key for key in FINGERPRINTS if info.get(key)), None)
    return f"{key} {_state(info[key])}" if key else ""


def _state(value: Any) -> str:
    """The same text for a time in the forms that listing a folder and asking for a file give."""
    return str(value.timestamp() if isinstance(value, datetime) else value)


def _formats(filesystem: Any, names: Sequence[str], source: SourceConfig) -> dict[str, FormatName | None]:
    """Format of each file; the content is looked at only if the name leaves it open."""
    formats = {name: format_of(name, source) for name in names}
    open_names = [name for name in names if not formats[name] and is_told_by_content(name)]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        contents: Iterable[FormatName | None] = pool.map(lambda name: _by_content(filesystem, name), open_names)
        return formats | dict(zip(open_names, contents, strict=True))


def _by_content(filesystem: Any, name: str) -> FormatName | None:
    try:
        with filesystem.open(name, "rb") as file:
            return format_of_content(BufferedReader(file), name)
    except Exception:  # filesystem packages raise exceptions of their own
        return None


def _unknown(name: str, info: Mapping[str, Any]) -> str:
    if info.get("size") == 0:
        return "empty"
    endings = PurePosixPath(public_url(name)).suffixes
    ending = "".join(endings[-2:] if endings and endings[-1].lower() in COMPRESSIONS else endings[-1:])
    return "of unknown content" if is_told_by_content(name) else f"{ending} files"


def _nothing_matches(pattern: str, passed_over: Sequence[PassedOver]) -> str:
    found = f"; {len(passed_over):,} files match and are passed over: " if passed_over else ""
    return (
        f"no text files match {pattern}{found}{'; '.join(sentences(summary(passed_over)))}; accepted are {ACCEPTED}, "
        f"all but Parquet and Arrow also with {', '.join(COMPRESSIONS)}, such as ./my_texts/**/*.jsonl.gz; files with "
        "other extensions need `format`"
    )
