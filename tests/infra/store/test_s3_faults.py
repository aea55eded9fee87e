"""S3 fails as it does in practice: requests are repeated, or the error is one sentence; nothing half written counts."""

import logging
import os
import re
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from data_schemas.errors import ConfigError, EnvironmentProblem, StoreUnavailable
from infra.store import uploads
from infra.store.access import check_access
from infra.store.artifacts import ArtifactStore
from infra.store.claims import RunClaims
from infra.store.filesystem import FEW_FILES, Folder
from tests.infra.store.faulty_s3 import FaultyS3, faulty_s3
from tests.infra.store.s3_server import BUCKET, forget_clients
from tests.stores import commit, documents_table, no_rejects

pytestmark = pytest.mark.slow
PART_BYTES = 2**17
TRANSIENT = ["500", "503", "reset", "lost answer"]


@pytest.fixture
def proxy(s3, monkeypatch) -> Iterator[FaultyS3]:
    """The server through a proxy; requests are repeated without long waits."""
    from infra.store import s3 as retries

    monkeypatch.setattr(retries, "FIRST_DELAY_SECONDS", 0.001)
    monkeypatch.setattr(retries, "LOG_SECONDS", 0.0)
    with faulty_s3(os.environ["AWS_ENDPOINT_URL"]) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        forget_clients()
        yield running
    forget_clients()


@pytest.fixture
def folder(proxy) -> Folder:
    return Folder(f"s3://{BUCKET}/{uuid.uuid4().hex}")


def parts(monkeypatch, size: int = PART_BYTES) -> None:
    monkeypatch.setattr(uploads, "PART_BYTES", size)


@pytest.mark.parametrize("fault", [*TRANSIENT, "half upload"])
def test_writing_survives_faults_and_the_log_names_them(folder, proxy, fault, caplog):
    proxy.fail("PUT", "file", fault, times=3)
    folder.write("file", b"content")
    assert folder.read("file") == b"content"
    lines = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    attempts = [int(re.search(r"attempt (\d) of 9 follows in", line)[1]) for line in lines]
    # aiohttp itself repeats a request, once, if the kept connection that it went out on was closed.
    assert attempts == [2, 3, 4][: len(attempts)] and len(attempts) >= (3 if fault.isdecimal() else 1)
    assert lines[0].startswith(f"{folder.url}/file: put_object failed (")


@pytest.mark.parametrize("fault", [*TRANSIENT, "half download", "slow"])
def test_reading_survives_faults(folder, proxy, fault):
    folder.write("file", bytes(range(256)) * 100)
    proxy.fail("GET", "file", fault, times=2)
    assert folder.read("file") == bytes(range(256)) * 100
    proxy.fail("GET", "file", fault, times=2)
    assert folder.read_range("file", 10, 20) == bytes(range(10, 20))
    proxy.fail("*", "file", fault, times=2)
    with folder.open("file") as file:
        assert file.read() == bytes(range(256)) * 100
    proxy.fail("HEAD", "file", "503", times=2)
    assert folder.size("file") == 25_600
    proxy.fail("GET", "list-type=2", fault, times=2)
    assert folder.names() == ["file"]


def test_a_listing_whose_second_page_fails_is_no_listing(folder, proxy):
    for number in range(7):
        folder.write(f"{number}", b"x")
    proxy.page_size = 5
    proxy.fail("GET", "continuation-token", "500", times=3)
    assert len(folder.names()) == 7
    proxy.fail("GET", "continuation-token", "500")
    for listing in (folder.names, lambda: folder.files("")):
        with pytest.raises(StoreUnavailable):
            listing()
    proxy.heal()
    folder.remove()
    assert folder.names() == []


def test_a_listing_that_lags_behind_makes_no_file_missing(folder, proxy):
    names = [f"{number:03d}" for number in range(FEW_FILES + 2)]
    for name in names:
        folder.write(name, b"x")
    proxy.fail("GET", "list-type=2", lambda page: page.replace(b"/007</Key>", b"/elsewhere</Key>"))
    folder.remove_files(["008"])
    sizes = folder.sizes(names)
    assert sizes == dict.fromkeys(names, 1) | {"008": None}


def test_attempts_are_bounded_and_end_in_a_sentence(folder, proxy):
    rule = proxy.fail("*", ".", "503")
    for request in (lambda: folder.read("a"), lambda: folder.write("a", b""), lambda: folder.size("a"), folder.names):
        rule.failed = 0
        with pytest.raises(StoreUnavailable, match=r"failed 9 times, at last with 503.*command then resumes$"):
            request()
        assert rule.failed == 9, "neither botocore nor s3fs multiply them"


def test_an_address_without_a_server_is_a_sentence(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    forget_clients()
    with pytest.raises(StoreUnavailable, match=r"failed 2 times.*the server http://127\.0\.0\.1:9 can be reached"):
        check_access(f"{s3}/store")
    forget_clients()


@pytest.mark.parametrize("text", ["many", "0", "-1", "2.5"])
def test_a_number_of_attempts_that_is_none_is_refused(s3, monkeypatch, text):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", text)
    forget_clients()
    with pytest.raises(ConfigError, match=f"AWS_MAX_ATTEMPTS is '{text}'; give the number of attempts"):
        Folder(s3).names()


@pytest.mark.parametrize("fault", TRANSIENT)
def test_exclusive_creation_has_one_winner_whose_answer_may_be_lost(folder, proxy, fault):
    proxy.fail("PUT", "000001", fault, times=1)
    claims = [RunClaims(folder, "run") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = [claim for claim in pool.map(lambda claim: claim.take(1), claims) if claim]
    assert len(won) == 1
    assert RunClaims(folder, "run").take(1) is None


def test_a_conflict_of_conditional_writes_is_repeated_and_lost_to_the_other(folder, proxy):
    proxy.fail("PUT", "claim", "409", times=2)
    assert folder.create_exclusive("claim", b"mine")
    proxy.fail("PUT", "claim", "409", times=2)
    assert not folder.create_exclusive("claim", b"yours")
    assert folder.read("claim") == b"mine"
    proxy.fail("PUT", "other", "412")
    assert not folder.create_exclusive("other", b"mine"), "it was there for a moment"


def test_a_claim_is_not_doubted_because_the_store_does_not_answer(folder, proxy):
    claim = RunClaims(folder, "run").take(1)
    for fault in ("503", "403", "reset"):
        rule = proxy.fail("*", "000002", fault)
        with pytest.raises(EnvironmentProblem):
            claim.check()
        rule.times = 0
    claim.check()


@pytest.mark.parametrize("fault", [*TRANSIENT, "half upload"])
@pytest.mark.parametrize("request_", [("PUT", "partNumber=2"), ("POST", "uploads"), ("POST", "uploadId")])
def test_parts_of_an_upload_are_repeated(folder, proxy, monkeypatch, request_, fault):
    parts(monkeypatch)
    content = os.urandom(PART_BYTES) * 2 + b"end"
    proxy.fail(*request_, fault, times=1)
    with folder.create("big") as file:
        for start in range(0, len(content), 2**15):
            file.write(content[start : start + 2**15])
        assert not folder.exists("big")
    assert folder.read("big") == content


def test_an_upload_that_fails_leaves_what_was_there(folder, proxy, monkeypatch):
    parts(monkeypatch)
    folder.write("big", b"before")
    rule = proxy.fail("PUT", "partNumber=2", "500")
    with pytest.raises(StoreUnavailable, match=r"upload_part failed 9 times"), folder.create("big") as file:
        file.write(bytes(2 * PART_BYTES + 1))
    rule.times = 0
    with pytest.raises(ZeroDivisionError), folder.create("big") as file:
        file.write(bytes(2 * PART_BYTES + 1))
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), folder.create("small") as file:
        file.write(b"half")
        raise ZeroDivisionError
    unclosed = folder.create("never")
    unclosed.write(b"half")
    del unclosed
    assert {name: folder.read(name) for name in folder.names()} == {"big": b"before"}
    assert "Uploads" not in folder.filesystem.call_s3(
        "list_multipart_uploads", Bucket=BUCKET, Prefix=folder.full().partition("/")[2]
    )


def test_a_commit_whose_answer_is_lost_is_one_artifact_and_a_failed_one_none(proxy):
    store = ArtifactStore(f"s3://{BUCKET}/{uuid.uuid4().hex}")

    def attempt(name: str) -> None:
        out = store.writer("ingest", "a" * 64, name, RAW_DOCUMENTS)
        out.write_table("documents/0.parquet", documents_table({"a": "text"}))
        out.write_table("rejects/0.parquet", no_rejects())
        out.write_table("funnel/0.parquet", RAW_DOCUMENTS.accepted_schemas("funnel/0.parquet")[0].empty_table())
        commit(store, out, "ingest", "a" * 64, RAW_DOCUMENTS)

    proxy.fail("PUT", "one/manifest", "lost answer", times=2)
    proxy.fail("PUT", "two/manifest", "half upload")
    attempt("one")
    with pytest.raises(StoreUnavailable):
        attempt("two")
    [artifact] = store.committed("ingest", "a" * 64)
    assert (artifact.manifest.attempt, artifact.damage()) == ("one", [])


def test_credentials_that_expire_are_read_again(folder, proxy):
    folder.write("a", b"1")
    proxy.fail("*", ".", "400", times=1)
    assert folder.read("a") == b"1"
    proxy.fail("*", ".", "400", code="ExpiredToken")
    with pytest.raises(EnvironmentProblem, match=r"credentials have expired \(400 ExpiredToken\).*then resumes"):
        folder.read("a")


@pytest.mark.parametrize(("method", "path", "right"), [
    ("PUT", "access", "s3:PutObject"), ("GET", "list-type", "s3:ListBucket"), ("GET", "access", "s3:GetObject"),
    ("POST", "delete", "s3:DeleteObject"),
])  # fmt: skip
def test_a_store_without_a_right_is_refused_before_anything_starts(folder, proxy, method, path, right):
    check_access(folder.url)
    proxy.fail(method, path, "403")
    with pytest.raises(EnvironmentProblem, match=rf"^s3://{BUCKET}.*: 403 AccessDenied: .* the right {right}$"):
        check_access(folder.url)


@pytest.mark.parametrize(("status", "code", "words"), [
    ("301", "PermanentRedirect", "another region or at another address"),
    ("400", "AuthorizationHeaderMalformed", "AWS_DEFAULT_REGION"),
    ("403", "InvalidAccessKeyId", "does not accept the credentials"),
    ("403", "SignatureDoesNotMatch", "does not accept the credentials"),
    ("403", "RequestTimeTooSkewed", "the clock of this machine"),
    ("501", "NotImplemented", r"the server refuses list_objects_v2 \(501 NotImplemented: planted\)"),
    ("400", "KeyTooLongError", "the server refuses list_objects_v2"),
])  # fmt: skip
def test_what_is_wrong_with_a_store_is_one_sentence(folder, proxy, status, code, words):
    proxy.fail("*", ".", status, code=code)
    with pytest.raises(EnvironmentProblem, match=words) as error:
        check_access(folder.url)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("status", "code", "words"), [
    ("501", "NotImplemented", "the server refuses put_object .* AWS_REQUEST_CHECKSUM_CALCULATION=when_required"),
    ("400", "InvalidArgument", "the server refuses put_object .* AWS_REQUEST_CHECKSUM_CALCULATION=when_required"),
    ("403", "QuotaExceeded", r"is full, or a quota of it is used up \(403 QuotaExceeded: planted\); .* then resumes"),
    ("507", "InsufficientStorage", "is full, or a quota of it is used up"),
    ("507", "XMinioStorageFull", "is full, or a quota of it is used up"),
])  # fmt: skip
def test_a_server_that_takes_no_file_is_not_asked_again(folder, proxy, status, code, words):
    proxy.fail("PUT", ".", status, code=code)
    for write in (
        lambda: check_access(folder.url),
        lambda: folder.write("a", b"1"),
        lambda: folder.create("a").close(),
    ):
        proxy.seen.clear()
        with pytest.raises(EnvironmentProblem, match=words):
            write()
        assert [line.split()[0] for line in proxy.seen].count("PUT") == 1


def test_a_file_in_an_archive_is_named(folder, proxy):
    proxy.fail("GET", "cold", "403", code="InvalidObjectState")
    with pytest.raises(EnvironmentProblem, match=r"/cold: it is in an archive, .*; restore it first"):
        folder.read("cold")


def test_a_missing_bucket_is_named_and_not_created(proxy):
    for use in (check_access, lambda url: Folder(url).read("x"), lambda url: Folder(url).write("x", b"")):
        with pytest.raises(EnvironmentProblem, match="the bucket absent-bucket does not exist"):
            use("s3://absent-bucket/store")
    assert all("PUT /absent-bucket?" not in line and line != "PUT /absent-bucket" for line in proxy.seen)


def test_an_impossible_bucket_is_a_sentence(proxy):
    with pytest.raises(EnvironmentProblem, match=r"Invalid bucket name .*check the store's URL") as error:
        Folder("s3://Bad_Bucket!!/store").names()
    assert "\n" not in str(error.value)


def test_missing_credentials_are_named(folder, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    forget_clients()
    with pytest.raises(EnvironmentProblem, match=r"no credentials \(.*set AWS_ACCESS_KEY_ID"):
        check_access(folder.url)


def test_a_file_that_cannot_be_removed_is_an_error(folder, proxy):
    folder.write("a", b"1")
    denied = b"<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    proxy.fail("POST", "delete", lambda body: denied)
    with pytest.raises(EnvironmentProblem, match="s3:DeleteObject"):
        folder.remove("a")


def test_whole_files_are_read_and_written_in_one_request(folder, proxy):
    folder.write("a", b"1")
    proxy.seen.clear()
    folder.read("a")
    folder.write("a", b"2")
    assert [line.split()[0] for line in proxy.seen] == ["GET", "PUT"]


def test_without_its_package_a_store_names_it(monkeypatch):
    from fsspec.registry import _registry

    with mock.patch.dict("sys.modules", {"s3fs": None}):
        monkeypatch.delitem(sys.modules, "infra.store.s3", raising=False)
        monkeypatch.delitem(_registry, "s3", raising=False)
        with pytest.raises(EnvironmentProblem, match=r"pip install 'headrace\[s3\]'"):
            check_access("s3://bucket/store")
