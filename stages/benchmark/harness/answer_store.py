"""Persistent answers by request, so that an evaluation that was killed resumes at the next item."""

import hashlib
import json
import time
from typing import Any

from infra.store.filesystem import Folder

FLUSH_SECONDS = 2.0
"""Upper bound of the work that a kill can lose."""
ENDING = ".jsonl"


def request_key(*parts: Any) -> str:
    """Key of a request: a hash of everything that determines its answer (JSON values)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


class AnswerStore:
    """Answers in JSON-lines files, each written atomically. Leaving the context manager flushes."""

    def __init__(self, folder: Folder | None = None, flush_seconds: float = FLUSH_SECONDS) -> None:
        """Load existing answers; without a folder, answers are kept in memory only."""
        self._folder = folder
        self._flush_seconds = flush_seconds
        self._answers: dict[str, Any] = {}
        self._unwritten: dict[str, Any] = {}
        # A process that is killed while writing leaves a temporary file with part of the lines.
        names = [name for name in folder.names() if name.endswith(ENDING)] if folder else []
        self._files = len(names)
        self._written = time.monotonic()
        for name in names:
            assert folder is not None
            # Not splitlines: answers may contain other line separators, such as U+2028, which JSON does not escape.
            for line in folder.read(name).decode().rstrip("\n").split("\n"):
                key, answer = json.loads(line)
                self._answers[key] = answer

    def __enter__(self) -> "AnswerStore":
        return self

    def __exit__(self, *error: object) -> None:
        self.flush()

    def __len__(self) -> int:
        return len(self._answers)

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Any:
        return self._answers[key]

    def add(self, answers: dict[str, Any]) -> None:
        """Add answers (JSON values); they are written within `flush_seconds` or on leaving the context."""
        self._answers |= answers
        self._unwritten |= answers
        if time.monotonic() - self._written >= self._flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write answers that are not on disk yet."""
        if self._folder and self._unwritten:
            lines = [json.dumps([key, answer], ensure_ascii=False) for key, answer in self._unwritten.items()]
            self._folder.write(f"{self._files:06d}{ENDING}", ("\n".join(lines) + "\n").encode())
            self._files += 1
        self._unwritten = {}
        self._written = time.monotonic()
