"""A file on S3 that is written in parts, several at a time; it exists once it is closed, whole."""

import contextlib
import io
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

PART_BYTES = 16 * 2**20
"""Size of the first `PARTS_PER_SIZE` parts; those after them are twice, then three times as large (up to 10,000)."""
PARTS_PER_SIZE = 2_000
PARTS_AT_ONCE = 4


class ParallelUpload(io.BufferedIOBase):
    """Write-only file of the filesystem of `infra.store.s3`; holds up to `PARTS_AT_ONCE` + 2 parts in memory.

    An error inside a `with` block, or of a part, leaves no file, and the one that was there before as it was.
    """

    def __init__(self, filesystem: Any, path: str) -> None:
        self._filesystem, self._path = filesystem, path
        bucket, key, _ = filesystem.split_path(path)
        self._target = {"Bucket": bucket, "Key": key}
        self._buffer = bytearray()
        self._position = 0
        self._upload = ""
        self._pool: ThreadPoolExecutor | None = None
        self._sent: list[Future[dict[str, Any]]] = []
        self._running: deque[Future[dict[str, Any]]] = deque()
        self._failure: Exception | None = None

    def writable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes written."""
        return self._position

    def write(self, data: Any) -> int:
        """Add bytes; waits while as many parts as allowed are on their way.

        Raises:
            StoreUnavailable: or any other error of a part before.
        """
        if self.closed:
            raise ValueError("write to a closed file")
        view = memoryview(data).cast("B")
        self._buffer += view
        self._position += view.nbytes
        try:
            while len(self._buffer) > (size := PART_BYTES * (1 + len(self._sent) // PARTS_PER_SIZE)):
                part = bytes(memoryview(self._buffer)[:size])
                del self._buffer[:size]
                self._send(part)
        except Exception as error:
            self._failure = error
            raise
        return view.nbytes

    def close(self) -> None:
        """Make the file exist."""
        if self.closed:
            return
        try:
            if not self._upload:
                self._filesystem.pipe_file(self._path, bytes(self._buffer))
            else:
                self._send(bytes(self._buffer))
                parts = [future.result() for future in self._sent]
                self._call("complete_multipart_upload", UploadId=self._upload, MultipartUpload={"Parts": parts})
                self._upload = ""
        finally:
            self.discard()

    def discard(self) -> None:
        """Give up what is not complete; the file does not exist then."""
        if self.closed:
            return
        super().close()
        self._buffer = bytearray()
        for future in self._running:
            future.cancel()
        if self._pool:
            self._pool.shutdown()
        if self._upload:
            with contextlib.suppress(Exception):  # headrace gc finds it; the error that led here is the news
                self._call("abort_multipart_upload", UploadId=self._upload)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        self.discard()
        if self._failure is not None and self._failure is not error:  # torch's writer hides it behind one of its own
            raise self._failure from None

    def __del__(self) -> None:
        """Nothing: a file that was not closed is not complete, and `IOBase` would close it."""

    def _send(self, part: bytes) -> None:
        if not self._upload:
            self._upload = self._call("create_multipart_upload")["UploadId"]
            self._pool = ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="upload")
        assert self._pool is not None
        while len(self._running) >= PARTS_AT_ONCE:
            self._running.popleft().result()
        future = self._pool.submit(self._send_part, len(self._sent) + 1, part)
        self._sent.append(future)
        self._running.append(future)

    def _send_part(self, number: int, part: bytes) -> dict[str, Any]:
        answer = self._call("upload_part", UploadId=self._upload, PartNumber=number, Body=part)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _call(self, method: str, **arguments: Any) -> Any:
        return self._filesystem.call_s3(method, **self._target, **arguments)
