"""Rephrasing by a large model behind an OpenAI-compatible endpoint.

- `EndpointRephraser`: the method
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from data_schemas.errors import EnvironmentProblem
from stages.synthesize.engines.chat_server import ChatServer, Refused, Unanswered
from stages.synthesize.engines.prompts import RecipeName, chat_messages
from stages.synthesize.method import Failure, checked

VERSION = 1
"""Raised when the same text makes another request."""
MAX_FAILURES = 20
"""Texts in a row without an answer after which the server counts as gone."""
CHECK_TEXT, CHECK_TOKENS = "The mill turned.", 16
"""Text that `check` sends, and tokens of the answer."""
_BEGIN_OF_THOUGHTS, _END_OF_THOUGHTS = "<think>", "</think>"


class EndpointRephraser:
    """Rephrases texts by requests to a server, several at a time."""

    name = "rephrasing"

    def __init__(
        self,
        server: ChatServer,
        model: str,
        model_version: str,
        recipe: RecipeName,
        temperature: float,
        top_p: float,
        max_tokens: int,
        max_characters: int,
        concurrency: int,
    ) -> None:
        """Describe the requests; none is made yet.

        Args:
            server: where they go.
            model: the model's name on the server.
            model_version: what distinguishes it from other models of that name.
            recipe: how texts are rephrased.
            temperature: sampling temperature.
            top_p: share of the probability that is sampled from.
            max_tokens: tokens of an answer at most.
            max_characters: longer texts are failures.
            concurrency: requests at a time.
        """
        self.engine = f"endpoint {model}"
        self.engine_version = f"{VERSION} ({model_version or 'as served'})"
        self._server, self._model, self._recipe = server, model, recipe
        self._sampling = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        self._max_characters, self._concurrency = max_characters, concurrency
        self._failures, self._lock = 0, threading.Lock()

    def rewrite(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str | Failure]:
        """Texts as the model rephrases them; see `Method.rewrite`. A server may ignore the seeds.

        Raises:
            EnvironmentProblem: if the server cannot be reached, refuses the key, or answered none of the last texts.
        """
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="endpoint")
        try:
            futures = [pool.submit(self._rewrite, text, seed) for text, seed in zip(texts, seeds, strict=True)]
            return [future.result() for future in futures]
        finally:  # an error, or Ctrl-C, does not wait for the requests that are under way
            pool.shutdown(wait=False, cancel_futures=True)

    def check(self) -> None:
        """Send one small request.

        Raises:
            EnvironmentProblem: if the server cannot be reached, or refuses the key, the model or the settings.
        """
        self._server.check(self._body(chat_messages(self._recipe, CHECK_TEXT), 0) | {"max_tokens": CHECK_TOKENS})

    def _body(self, messages: list[dict[str, str]], seed: int) -> dict[str, Any]:
        return {"model": self._model, "messages": messages, "seed": seed % 2**31, "stream": False, **self._sampling}

    def _rewrite(self, text: str, seed: int) -> str | Failure:
        if not text.strip():
            return Failure("the text is empty")
        if len(text) > self._max_characters:
            return Failure("the text is longer than max_characters")
        content = text.encode("utf-8", "replace").decode()
        messages = chat_messages(self._recipe, content)
        try:
            answer = self._server.complete(self._body(messages, seed))
        except Refused as error:
            self._count(failed=False)
            return Failure(str(error))
        except Unanswered as error:
            self._count(failed=True)
            return Failure(str(error), may_succeed_later=True)
        self._count(failed=False)
        return checked(text, _without_thoughts(answer))

    def _count(self, failed: bool) -> None:
        with self._lock:
            self._failures = self._failures + 1 if failed else 0
            if self._failures >= MAX_FAILURES:
                self._failures = 0
                raise EnvironmentProblem(
                    f"the endpoint {self._server.host} answered none of the last {MAX_FAILURES} texts; see its log, "
                    "and continue the run when it answers"
                )


def _without_thoughts(answer: str) -> str | Failure:
    """Answer after the model's reasoning, which some servers leave in it, some of them without its first mark."""
    begins = answer.lstrip().startswith(_BEGIN_OF_THOUGHTS)
    if begins and _END_OF_THOUGHTS not in answer:
        return Failure("the answer ends within the model's reasoning")
    is_first = _BEGIN_OF_THOUGHTS not in answer.partition(_END_OF_THOUGHTS)[0]
    thinks = begins or (is_first and _END_OF_THOUGHTS in answer)
    return (answer.partition(_END_OF_THOUGHTS)[2] if thinks else answer).strip()
