"""One line of `headrace doctor`, and the check that makes it."""

from collections.abc import Callable
from dataclasses import dataclass

from data_schemas.errors import HeadraceError


@dataclass(frozen=True)
class Finding:
    """State of one thing that a run uses."""

    name: str
    found: str
    advice: str = ""
    """Sentence that says what is missing or would be better, and how to get it; empty if nothing is."""
    blocks: bool = False
    """Whether no run can start like this."""


Check = Callable[[], Finding]


def refusal_of(use: Callable[[], object]) -> str:
    """The sentence with which something refuses to work; empty if it works."""
    try:
        use()
    except (HeadraceError, OSError) as error:
        return str(error)
    return ""
