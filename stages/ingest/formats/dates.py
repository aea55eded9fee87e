"""Dates in free form, as in headers.

- `iso_date`: a date as ISO 8601
"""

import re
from datetime import datetime

_ISO = re.compile(r"\d{4}-\d\d(?:-\d\d)?")
_FORMS = (
    ("%B %d %Y", "%Y-%m-%d"), ("%d %B %Y", "%Y-%m-%d"), ("%d %b %Y", "%Y-%m-%d"), ("%b %d %Y", "%Y-%m-%d"),
    ("%B %Y", "%Y-%m"),
)  # fmt: skip


def iso_date(text: str) -> str | None:
    """Day or month of `2019-07-31 09:00:00`, `August 26, 2008 [EBook #1342]` or `13-Jun-2000`; None for other text."""
    if match := _ISO.match(text):
        return match[0]
    words = " ".join(re.sub(r"\[.*|[,-]", " ", text).split())
    for form, result in _FORMS:
        try:
            return datetime.strptime(words, form).strftime(result)
        except ValueError:
            continue
    return None
