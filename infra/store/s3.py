"""S3 as stores and sources use it: requests are retried here, by one rule, and refusals are sentences.

The retries of botocore and of s3fs are off, since each would multiply the other's. An answer counts once its body is
read; a request that may be repeated without harm is repeated up to `ATTEMPTS` times, with back-off and a line in the
log. Creation under a condition may be repeated too: its caller compares the content
(`infra.store.filesystem.Folder.create_exclusive`).

- `StoreS3`: the filesystem of `s3://` in every process that imports `infra.store.filesystem`
"""

import asyncio
import hashlib
import io
import logging
import os
import random
import re
import time
from typing import Any

from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error

from data_schemas.errors import ConfigError
from infra.store.s3_errors import Fault, fault_of

logger = logging.getLogger(__name__)

ATTEMPTS = 9
"""Attempts of a request, unless `AWS_MAX_ATTEMPTS` is set: about half a minute with all waits."""
FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 8.0
ATTEMPT_SECONDS = 300.0
"""Longest time of an attempt, besides that of its own bytes at `SLOWEST_BYTES_PER_SECOND`."""
SLOWEST_BYTES_PER_SECOND = 50_000
CONNECTIONS = 32
LOG_SECONDS = 5.0
"""Time between two lines about retries; requests run in parallel, and are throttled together."""
_MD5 = re.compile(r"\"?([0-9a-f]{32})\"?")


class StoreS3(S3FileSystem):  # type: ignore[misc]
    """`s3fs.S3FileSystem` with one rule for retries."""

    retries = 1  # of s3fs, which wraps some requests once more

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.attempts = _attempts()
        # Of its own: training draws from the global generators.
        self._jitter = random.Random()

    def _prepare_config_kwargs(self) -> dict[str, Any]:
        settings: dict[str, Any] = super()._prepare_config_kwargs()
        settings["retries"] = {"total_max_attempts": 1}
        settings.setdefault("max_pool_connections", CONNECTIONS)
        return settings

    async def _call_s3(self, method: str, *options: Any, **kwargs: Any) -> Any:
        """Answer to a request, its body read.

        Raises:
            StoreUnavailable: if every attempt failed.
            EnvironmentProblem: if the request is not permitted, or bucket, region, address or credentials are wrong.
            OSError: the error that fits any other answer, such as `FileNotFoundError` and `FileExistsError`.
        """
        refreshed = False
        for attempt in range(1, self.attempts + 1):
            try:
                return await asyncio.wait_for(self._attempt(method, *options, **kwargs), _longest_seconds(kwargs))
            except Exception as error:
                fault = fault_of(error)
                may_be_done = attempt > 1 and method == "complete_multipart_upload" and fault.code == "NoSuchUpload"
                if may_be_done and (answer := await self._completed(kwargs)):
                    return answer
                if fault.is_expired and not refreshed:  # credentials may have been renewed outside of this process
                    refreshed = True
                    await self.set_session(refresh=True)
                elif not fault.is_transient or attempt == self.attempts:
                    problem = fault.refusal(method, kwargs, attempt) or translate_boto_error(error)
                    raise problem from (None if problem is error else error)
                else:
                    await self._wait(attempt, method, kwargs, fault)
        raise AssertionError("an attempt returns or raises")

    call_s3 = sync_wrapper(_call_s3)

    async def _attempt(self, method: str, *options: Any, **kwargs: Any) -> Any:
        await self.set_session()
        call = getattr(await self.get_s3(kwargs.get("Bucket")), method)
        answer = await call(**self._get_s3_method_kwargs(call, *options, **kwargs))
        if "Body" in answer:
            body = answer["Body"]
            try:
                data = await body.read()
            finally:
                body.close()
            if len(data) != answer.get("ContentLength", len(data)):
                raise ConnectionError(f"{len(data):,} of {answer['ContentLength']:,} bytes arrived")
            answer["Body"] = _Body(data)
        if method == "delete_objects" and answer.get("Errors"):  # s3fs takes no notice
            first = answer["Errors"][0]
            raise _refused_deletion(first) from None
        return answer

    async def _wait(self, attempt: int, method: str, kwargs: dict[str, Any], fault: Fault) -> None:
        longest = min(FIRST_DELAY_SECONDS * 2 ** (attempt - 1), LONGEST_DELAY_SECONDS)
        delay = longest * self._jitter.uniform(0.5, 1.0)
        _log(
            f"s3://{kwargs.get('Bucket')}/{kwargs.get('Key', '')}: {method} failed ({fault.text}); "
            f"attempt {attempt + 1} of {self.attempts} follows in {delay:.1f} s"
        )
        await asyncio.sleep(delay)

    async def _completed(self, kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to the completion of an upload that an earlier attempt completed, whose answer was lost."""
        parts = [_MD5.fullmatch(part["ETag"]) for part in kwargs["MultipartUpload"]["Parts"]]
        if not all(parts):
            return None  # encrypted: the ETag of the whole cannot be computed
        digest = hashlib.md5(b"".join(bytes.fromhex(part[1]) for part in parts if part), usedforsecurity=False)
        answer = await self._attempt("head_object", Bucket=kwargs["Bucket"], Key=kwargs["Key"])
        return answer if answer["ETag"].strip('"') == f"{digest.hexdigest()}-{len(parts)}" else None


def _attempts() -> int:
    text = os.environ.get("AWS_MAX_ATTEMPTS") or str(ATTEMPTS)
    if not text.strip().isdecimal() or int(text) < 1:
        raise ConfigError(f"AWS_MAX_ATTEMPTS is {text!r}; give the number of attempts of a request, 1 or more")
    return int(text)


class _Body:
    """A body that was read, with the methods of the stream that it came from."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    async def read(self, amount: int | None = None) -> bytes:
        """Up to `amount` bytes, by default all that follow."""
        return self._data.read(amount)

    def close(self) -> None:
        """Nothing: the connection is free already."""


def _longest_seconds(kwargs: dict[str, Any]) -> float:
    body = kwargs.get("Body")
    return ATTEMPT_SECONDS + (len(body) if isinstance(body, bytes | bytearray | memoryview) else 0) / (
        SLOWEST_BYTES_PER_SECOND
    )


def _refused_deletion(error: dict[str, Any]) -> Exception:
    from botocore.exceptions import ClientError

    status = 403 if error.get("Code") == "AccessDenied" else 500
    return ClientError(  # type: ignore[no-any-return]
        {"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}, "DeleteObjects"
    )


_logged = {"time": float("-inf"), "skipped": 0.0}


def _log(line: str) -> None:
    now = time.monotonic()
    if now - _logged["time"] < LOG_SECONDS:
        _logged["skipped"] += 1
        return
    more = f" ({_logged['skipped']:.0f} more retries since the last line)" if _logged["skipped"] else ""
    _logged.update(time=now, skipped=0.0)
    logger.warning("%s%s", line, more)
