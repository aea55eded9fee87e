"""Stores that other processes can access."""

import os
import uuid
from collections.abc import Iterator
from unittest import mock

import pytest

from tests.infra.store.s3_server import BUCKET, s3_server


@pytest.fixture(scope="package")
def s3() -> Iterator[str]:
    """URL of a bucket on a local S3, which this process and its children are pointed to in the tests of this folder."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    with s3_server() as environment, mock.patch.dict(os.environ, environment):
        yield f"s3://{BUCKET}"


@pytest.fixture(params=["file", "s3"])
def shared_store(request, tmp_path) -> str:
    """URL of an empty store that other processes can access."""
    if request.param == "file":
        return f"file://{tmp_path}/store"
    return f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}"
