"""A listing of a whole store, by the keys of its artifacts.

- `StoreContents`: files, manifests and shared passes; `read_contents` lists them in a request per 1,000 files
- `check_store`: refuses other folders
- `artifact_id`: `<stage>/<key>/<attempt>`, the folder of an artifact
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from data_schemas.errors import DamagedArtifactError, NotFoundError, UnreadableRecordError
from data_schemas.manifest import ArtifactRef, Manifest
from infra.store.artifact_writer import MANIFEST
from infra.store.file_lists import FileIndex
from infra.store.filesystem import Folder
from infra.store.garbage.uploads import unfinished_uploads
from infra.store.listings import StoredFile
from infra.store.records import parse_record, readable_fields

PARTS = "parts"
_KEY = re.compile(r"[0-9a-f]{64}")
TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.tmp")
"""Names of files that `Folder.write` renames when they are complete."""


def artifact_id(ref: ArtifactRef | Manifest) -> str:
    """`<stage>/<key>/<attempt>`, the folder of an artifact inside its store."""
    return f"{ref.stage}/{ref.key}/{ref.attempt}"


@dataclass
class StoreContents:
    """The files of a store at one time; paths are relative to the store."""

    root: Folder
    keys: dict[str, list[StoredFile]] = field(default_factory=dict)
    """`<stage>/<key>` -> its files."""
    manifests: dict[str, Manifest] = field(default_factory=dict)
    """Id of an artifact -> its manifest."""
    unreadable: dict[str, list[ArtifactRef]] = field(default_factory=dict)
    """Id of an artifact whose manifest this version cannot read -> those of its inputs that it can."""
    shared: dict[str, list[StoredFile]] = field(default_factory=dict)
    """`shared/<stage>/<key>` -> its files."""
    temporary: list[StoredFile] = field(default_factory=list)
    """Files and uploads of writes that have not ended, anywhere in the store."""

    def load(self, artifact: str) -> Manifest | None:
        """The manifest of an artifact that was not listed: behind a link, of an unknown stage or newer."""
        [data] = self.root.read_many([f"{artifact}/{MANIFEST}"])
        try:
            return None if data is None else _with_files(self.root, parse_record(Manifest, data, artifact))
        except (UnreadableRecordError, DamagedArtifactError):
            self.unreadable[artifact] = _readable_inputs(data or b"")
            return None


def check_store(root: Folder) -> None:
    """Make sure that a folder is a store, before anything in it is removed.

    Raises:
        NotFoundError: if it is none.
    """
    if "runs" not in root.names():
        raise NotFoundError(
            f"{root.url} is no store of Headrace: it holds no runs; name one with --store or HEADRACE_HOME"
        )


def read_contents(root: Folder, stages: Sequence[str]) -> StoreContents:
    """List the folders of `stages`, of shared passes and of run records; reads the manifests.

    Only folders whose names are keys (64 hex digits) count; whatever else is in the store is not listed.

    Raises:
        NotFoundError: if there is no store.
    """
    check_store(root)
    contents, names = StoreContents(root), root.names()
    for stage in stages:
        for file in root.files(stage) if stage in names else []:
            key = file.path.split("/")[1]
            if _KEY.fullmatch(key) and file.path.count("/") > 2:
                contents.keys.setdefault(f"{stage}/{key}", []).append(file)
    for file in root.files("shared") if "shared" in names else []:
        if file.path.count("/") > 2:
            contents.shared.setdefault("/".join(file.path.split("/")[:3]), []).append(file)
    others = [file for folder in ("runs", "reports") if folder in names for file in root.files(folder)]
    for files in (*contents.keys.values(), *contents.shared.values(), others):
        contents.temporary += [file for file in files if TEMPORARY.fullmatch(file.path.rsplit("/", 1)[-1])]
    ours = {*stages, "shared", "runs", "reports"}
    contents.temporary += [file for file in unfinished_uploads(root) if file.path.split("/")[0] in ours]
    _read_manifests(contents)
    return contents


def _read_manifests(contents: StoreContents) -> None:
    paths = [
        file.path
        for files in contents.keys.values()
        for file in files
        if file.path.count("/") == 3 and file.path.endswith(f"/{MANIFEST}")
    ]
    for path, data in zip(paths, contents.root.read_many(paths), strict=True):
        artifact = path.removesuffix(f"/{MANIFEST}")
        try:
            if data is not None:
                contents.manifests[artifact] = _with_files(
                    contents.root, parse_record(Manifest, data, contents.root.full(path))
                )
        except (UnreadableRecordError, DamagedArtifactError):
            contents.unreadable[artifact] = _readable_inputs(data or b"")


def _with_files(root: Folder, manifest: Manifest) -> Manifest:
    """The manifest with all files, also if they are in lists."""
    if not manifest.file_lists:
        return manifest
    files = FileIndex(root.child(f"{manifest.stage}/{manifest.key}"), manifest).all()
    return manifest.model_copy(update={"files": files})


def _readable_inputs(data: bytes) -> list[ArtifactRef]:
    """Inputs of a manifest of another version, as far as they have the fields of this one."""
    inputs, references = readable_fields(data).get("inputs"), []
    for value in inputs.values() if isinstance(inputs, dict) else []:
        if isinstance(value, dict):
            fields = {name: value.get(name) for name in ArtifactRef.model_fields}
            try:
                references.append(ArtifactRef.model_validate(fields))
            except ValidationError:
                continue
    return references
