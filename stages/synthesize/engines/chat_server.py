"""Requests to a server that speaks OpenAI's chat completions, as vLLM, SGLang, llama.cpp and the providers do.

- `ChatServer`: one request, tried again while that can help
- `Refused`, `Unanswered`: a request that was refused for good, or got no usable answer after all tries

The key comes from an environment variable and goes to the server in a header alone. No text of a server is repeated
in a message: it may hold the key or a document.
"""

import email.utils
import errno
import http.client
import json
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.message import Message
from typing import Any

from data_schemas.errors import ConfigError, EnvironmentProblem
from data_schemas.public_urls import public_url

MAX_ANSWER_BYTES = 16 << 20
MAX_WAIT_SECONDS = 120.0
_CHUNK = 1 << 16
_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request can succeed."""
_WRONG_SETTINGS = frozenset({401, 402, 403, 404, 405})
_FINISHED = frozenset({None, "", "stop", "eos", "eos_token", "end_turn", "stop_sequence"})
"""Reasons of an answer that is whole; servers have names of their own for it."""
_CUT_OFF = frozenset({"length", "max_tokens", "model_length"})
CHECK_SECONDS = 30.0
"""Time that `check` waits: a server that is slower, or loads its model, is there."""


class Refused(Exception):
    """The server refused a request for what is in it."""


class Unanswered(Exception):
    """No usable answer after all tries."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects are errors: following one would send key and text to whatever host it names."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


@dataclass(frozen=True)
class ChatServer:
    """A server and how patiently it is asked."""

    url: str
    """Base URL, up to and including `/v1`."""
    key_variable: str
    """Environment variable that holds the key; without a value no key is sent."""
    timeout_seconds: float
    """Time for a whole answer."""
    tries: int
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not _is_valid(parts):
            raise ConfigError(
                f"the endpoint's url is {public_url(self.url)!r}; accepted is a base URL such as http://localhost:8000/v1"
            )
        if parts.username or parts.password or parts.query:
            raise ConfigError(
                f"the endpoint's url {public_url(self.url)!r} holds credentials or a query; put the key into the "
                f"environment variable {self.key_variable}"
            )

        self._key()

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return urllib.parse.urlsplit(self.url).netloc

    def complete(self, body: Mapping[str, Any]) -> str:
        """Text of the answer to a request.

        Raises:
            Refused: if the server refused it for good, or cut the answer off.
            Unanswered: if no try had a usable answer.
            EnvironmentProblem: if the server cannot be reached, or knows neither key nor model.
        """
        reason = ""
        for attempt in range(self.tries):
            try:
                return _content(self._post(body))
            except urllib.error.HTTPError as error:
                with error:
                    self._check_status(error.code)
                    reason, wait = f"the server answered with HTTP {error.code}", _retry_after(error.headers)
            except _Malformed as error:
                reason, wait = str(error), None
            except (OSError, http.client.HTTPException) as error:
                cause = error.reason if isinstance(error, urllib.error.URLError) else error
                if attempt == self.tries - 1 or isinstance(cause, ssl.SSLCertVerificationError):
                    self._check_presence(cause)
                is_late = isinstance(cause, TimeoutError)
                reason, wait = "the server did not answer in time" if is_late else "the connection broke", None
            if attempt < self.tries - 1:
                self.sleep(min(MAX_WAIT_SECONDS, 2.0**attempt if wait is None else wait))
        raise Unanswered(reason)

    def check(self, body: Mapping[str, Any]) -> None:
        """Send a small request once; a server that is busy, slow or confused is there.

        Raises:
            EnvironmentProblem: if the server cannot be reached, or refuses the request.
        """
        try:
            replace(self, timeout_seconds=min(self.timeout_seconds, CHECK_SECONDS))._post(body)
        except urllib.error.HTTPError as error:
            with error:
                try:
                    self._check_status(error.code)
                except Refused:
                    raise EnvironmentProblem(
                        f"the endpoint {self.host} answered a text of three words with HTTP {error.code}; check the "
                        "model's name, and whether the model takes temperature, top_p, seed and max_tokens"
                    ) from None
        except (OSError, http.client.HTTPException) as error:
            self._check_presence(error.reason if isinstance(error, urllib.error.URLError) else error)
        except _Malformed:
            pass

    def _check_presence(self, cause: object) -> None:
        """Raise an error if the cause means that there is no server, or a server that cannot prove its name."""
        if isinstance(cause, ConnectionRefusedError | socket.gaierror) or (
            isinstance(cause, OSError) and cause.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH)
        ):
            raise EnvironmentProblem(
                f"the endpoint {self.host} cannot be reached; start the server, or correct the url"
            ) from None
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise EnvironmentProblem(
                f"the certificate of the endpoint {self.host} cannot be verified; set SSL_CERT_FILE, or correct the url"
            ) from None

    def _key(self) -> str:
        """The key; refused if no header can hold it, as the error of a header would repeat it."""
        key = os.environ.get(self.key_variable, "").strip()
        if not key.isascii() or not key.isprintable():
            raise EnvironmentProblem(
                f"the environment variable {self.key_variable} holds characters that no key has, such as line breaks; "
                "set it to the key alone"
            )
        return key

    def _check_status(self, status: int) -> None:
        if status in _WRONG_SETTINGS or 300 <= status < 400:
            raise EnvironmentProblem(
                f"the endpoint {self.host} answered with HTTP {status}; check its url, the model's name and the key in "
                f"{self.key_variable}"
            )
        if status not in _BUSY:
            raise Refused(f"the server refused the text with HTTP {status}")

    def _post(self, body: Mapping[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "headrace"}
        key = self._key()
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = json.dumps(body, ensure_ascii=True).encode()
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", data, headers)
        deadline = time.monotonic() + self.timeout_seconds
        opener = urllib.request.build_opener(_NoRedirects)
        received = bytearray()
        with opener.open(request, timeout=self.timeout_seconds) as response:
            while chunk := response.read1(_CHUNK):
                received += chunk
                if time.monotonic() > deadline:
                    raise TimeoutError
                if len(received) > MAX_ANSWER_BYTES:
                    raise _Malformed("the answer is too long")
            expected = response.headers.get("Content-Length")
            if expected is not None and expected.isdigit() and int(expected) > len(received):
                raise _Malformed("the answer is incomplete")
        return bytes(received)


def _is_valid(parts: urllib.parse.SplitResult) -> bool:
    try:
        return parts.port != 0 and parts.geturl().isascii() and not re.search(r"[\s\x00-\x1f]", parts.geturl())
    except ValueError:  # a port that is none
        return False


class _Malformed(Exception):
    """An answer that is no chat completion; another try may be."""


def _content(answer: bytes) -> str:
    """Text of a chat completion."""
    try:
        choice = json.loads(answer)["choices"][0]
        content, finish = choice["message"].get("content"), choice.get("finish_reason")
        refusal = choice["message"].get("refusal")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _Malformed("the answer is no chat completion") from None
    if finish in _CUT_OFF:
        raise Refused("the answer was cut off at max_tokens")
    if finish == "content_filter":
        raise Refused("the server's filter removed the answer")
    if refusal and not content:
        raise Refused("the model refused the text")
    if finish not in _FINISHED:  # "abort", "error", "tool_calls", ...
        raise _Malformed("the answer was interrupted")
    if not isinstance(content, str) or not content.strip():
        raise _Malformed("the answer is empty")
    return content


def _retry_after(headers: Message) -> float | None:
    """Seconds that the server asks to wait: a number, or a date."""
    value = (headers.get("Retry-After") or "").strip()
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
