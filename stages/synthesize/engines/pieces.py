"""Long sentences in parts that an engine bears.

- `short_spans`: parts of a span, cut at spaces
"""

from collections.abc import Iterator

from stages.synthesize.text.protected import Span


def short_spans(text: str, start: int, end: int, max_characters: int) -> Iterator[Span]:
    """Parts of a span with up to `max_characters`, cut at spaces, which are left out, or anywhere in a longer word."""
    while end - start > max_characters:
        space = text.rfind(" ", start + 1, start + max_characters)
        stop = space if space > start else start + max_characters
        yield start, stop
        start = stop + (space > start)
    yield start, end
