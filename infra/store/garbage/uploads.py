"""Uploads to S3 that were begun and did not end; other filesystems have none."""

import contextlib
from collections.abc import Sequence

from data_schemas.errors import EnvironmentProblem
from infra.store.filesystem import Folder
from infra.store.listings import StoredFile, protocols


def unfinished_uploads(root: Folder) -> list[StoredFile]:
    """Uploads below a folder that neither ended nor were aborted; S3 keeps their parts for good."""
    bucket, prefix = _bucket_and_prefix(root)
    if bucket is None:
        return []
    uploads: list[StoredFile] = []
    page: dict[str, str] | None = {}
    while page is not None:
        try:
            answer = root.filesystem.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **page)
        except (OSError, NotImplementedError, EnvironmentProblem):
            return uploads  # not permitted, or not known to this server
        uploads += [
            StoredFile(upload["Key"][len(prefix) :], 0, upload["Initiated"].timestamp(), upload["UploadId"])
            for upload in answer.get("Uploads", [])
        ]
        markers = answer.get("NextKeyMarker", ""), answer.get("NextUploadIdMarker", "")
        page = {"KeyMarker": markers[0], "UploadIdMarker": markers[1]} if answer.get("IsTruncated") else None
    return uploads


def abort_uploads(root: Folder, uploads: Sequence[StoredFile]) -> None:
    """Remove the parts of uploads that will not end."""
    bucket, prefix = _bucket_and_prefix(root)
    for upload in uploads:
        with contextlib.suppress(FileNotFoundError):  # it has ended
            root.filesystem.call_s3(
                "abort_multipart_upload", Bucket=bucket, Key=prefix + upload.path, UploadId=upload.upload
            )


def _bucket_and_prefix(root: Folder) -> tuple[str | None, str]:
    """Bucket and beginning of keys on S3; no bucket on other filesystems."""
    if "s3" not in protocols(root.filesystem):
        return None, ""
    bucket, _, key = root.full().partition("/")
    return bucket, f"{key}/" if key else ""
