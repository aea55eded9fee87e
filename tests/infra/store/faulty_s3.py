"""A proxy in front of an S3 server that fails as S3 and networks do.

`with faulty_s3(server_url) as proxy: proxy.fail("PUT", "manifest", "503", times=2)`: requests that match fail that many
times, then pass. Faults:

- a status such as "503": an answer of S3, with the code that belongs to it or another one
- "reset": the connection ends before an answer; the server never sees the request
- "lost answer": the server does what was requested, then the connection ends
- "half upload": the connection ends in the middle of the body; the server sees the first half
- "half download": the connection ends in the middle of the answer's body
- "slow": the answer's body arrives in pieces, with pauses
- a callable that receives the answer's body and returns another one
"""

import http.client
import http.server
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

CODES = {
    "403": "AccessDenied", "404": "NoSuchKey", "409": "ConditionalRequestConflict", "412": "PreconditionFailed",
    "500": "InternalError", "503": "SlowDown", "400": "ExpiredToken", "301": "PermanentRedirect",
}  # fmt: skip
EVERY = ("503", "500", "reset", "lost answer", "half upload", "half download")
PAUSE_SECONDS = 0.05
HOP_HEADERS = {"connection", "transfer-encoding", "keep-alive", "content-length"}

Fault = str | Callable[[bytes], bytes]


@dataclass
class Rule:
    """Requests that fail."""

    method: str
    path: str
    fault: Fault
    times: float
    code: str
    failed: int = 0

    def takes(self, method: str, path: str) -> bool:
        """Whether this request fails, by the rule."""
        if self.failed >= self.times or self.method not in (method, "*") or not re.search(self.path, path):
            return False
        self.failed += 1
        return True


@dataclass
class FaultyS3:
    """The proxy: its URL, what it was told to do, and what it saw."""

    url: str
    upstream: str
    delay_seconds: float = 0.0
    """Wait before each request is passed on."""
    page_size: int = 0
    """Names per page of a listing; by default the server's 1,000."""
    every: int = 0
    """Of this many requests one fails, by each of `EVERY` in turn; 0 for none."""
    rules: list[Rule] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    """`METHOD /bucket/key?query` of every request, also of those that failed."""
    remembered: dict[tuple[str, ...], tuple[int, dict[str, str], bytes]] | None = None
    """Answers to GET and HEAD, given again without asking the server; None to ask it each time."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, method: str, path: str, fault: Fault, times: float = float("inf"), code: str = "") -> Rule:
        """Add a rule; `path` is a regular expression that is searched in `/bucket/key?query`."""
        rule = Rule(method, path, fault, times, code or CODES.get(str(fault), str(fault)))
        self.rules.append(rule)
        return rule

    def heal(self) -> None:
        """Pass everything on from now on."""
        self.rules.clear()

    def rule_for(self, method: str, path: str) -> Rule | None:
        """The rule by which a request fails, counted."""
        with self.lock:
            self.seen.append(f"{method} {path}")
            if self.every and len(self.seen) % self.every == 0:
                fault = EVERY[len(self.seen) // self.every % len(EVERY)]
                return Rule(method, path, fault, 1, CODES.get(fault, ""))
            return next((rule for rule in self.rules if rule.takes(method, path)), None)


@contextmanager
def faulty_s3(upstream: str) -> Iterator[FaultyS3]:
    """Run the proxy on a free port, in threads of this process."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    handler = type("Handler", (_Handler,), {})
    server = Server(("127.0.0.1", 0), handler)
    proxy = FaultyS3(f"http://127.0.0.1:{server.server_port}", upstream)
    handler.proxy = proxy
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultyS3

    def log_message(self, *arguments: object) -> None:
        pass

    def _serve(self) -> None:
        proxy = self.proxy
        rule = proxy.rule_for(self.command, unquote(self.path))
        fault = rule.fault if rule else ""
        if proxy.delay_seconds:
            time.sleep(proxy.delay_seconds)
        body = self._body()
        if fault == "reset":
            self.close_connection = True
            self.connection.close()
        elif isinstance(fault, str) and fault.isdecimal() and rule:
            headers = {"Content-Type": "application/xml", "x-amz-bucket-region": "eu-central-1"}
            self._answer(int(fault), headers, _error(rule.code))
        elif fault == "half upload":
            self._upload_half(body)
            self.close_connection = True
            self.connection.close()
        else:
            status, headers, content = self._remembered(body)
            if fault == "lost answer":
                self.close_connection = True
                self.connection.close()
            elif callable(fault):
                self._answer(status, headers, fault(content))
            else:
                self._answer(status, headers, content, fault)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _remembered(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        answers = self.proxy.remembered
        if answers is None or self.command not in ("GET", "HEAD"):
            return self._forward(body)
        request = self.command, self.path, self.headers.get("Range", "")
        if request not in answers:
            answers[request] = self._forward(body)
        return answers[request]

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_HEADERS}
            headers.pop("Expect", None)
            path = self.path
            if self.proxy.page_size and "list-type=2" in path:
                path += f"&max-keys={self.proxy.page_size}"
            connection.request(self.command, path, body, {**headers, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            content = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in HOP_HEADERS}
            if self.command == "HEAD":
                kept["Content-Length"] = answer.getheader("Content-Length") or "0"
            return answer.status, kept, content
        finally:
            connection.close()

    def _upload_half(self, body: bytes) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=5)
        with suppress(OSError):
            connection.putrequest(self.command, self.path, skip_accept_encoding=True, skip_host=True)
            for name, value in self.headers.items():
                if name.lower() not in {*HOP_HEADERS, "expect"}:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[: len(body) // 2])
        connection.close()

    def _answer(self, status: int, headers: dict[str, str], content: bytes, fault: Fault = "") -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers and status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "half download":
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.close_connection = True
        elif fault == "slow":
            for start in range(0, len(content), max(1, len(content) // 4)):
                self.wfile.write(content[start : start + max(1, len(content) // 4)])
                self.wfile.flush()
                time.sleep(PAUSE_SECONDS)
        else:
            self.wfile.write(content)


def _error(code: str) -> bytes:
    condition = "<Condition>If-None-Match</Condition>" if code == "PreconditionFailed" else ""
    return f"<Error><Code>{code}</Code><Message>planted</Message>{condition}</Error>".encode()
