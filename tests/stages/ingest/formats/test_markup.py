import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.ingest.formats import markup
from stages.ingest.records import Failure, Record

MARKDOWN = """---
title: Mills
date: 2019-07-31 09:00:00 -0500
lang: en-GB
authors: [Ann, Bob]
license: CC0
nested: {a: 1}
---
# How *mills* work

A [wheel]({{< ref "wheel.md" >}}) turns
the `shaft`. ![a picture](x.png)<br>

{{< figure src="x.png" >}}
{% include nav.html %}

- one
- two

  more of two
  1. inner

```rust
let a = vec![1];  // {{name}}
```

| part | size |
| --- | --- |
| wheel | *big* |

> Quoted **words**.

<div class="note"><b>Mind</b> the gap</div>
"""
MARKDOWN_TEXT = """How mills work

A wheel turns the shaft.

- one
- two
  more of two
  1. inner

let a = vec![1];  // {{name}}

part | size
wheel | big

Quoted words.

Mind the gap"""

RST = """PEP: 9
Title: Mills
Created: 13-Jun-2000

How *mills* work
================

.. This is a comment.
.. _target:

A `wheel <https://example.org>`__ turns
the ``shaft`` [1]_, see :pep:`8` and :py:func:`turn <mill.turn>`.

.. versionadded:: 3.5
   Stones may be *round*.

.. code-block:: python

   turn(1)
     # indented

.. toctree::
   :maxdepth: 2

   hidden

.. include:: /etc/hostname
.. raw:: html

   <b>never</b>

1. one
2. two

wheel
    A round thing.

:Size: big

.. note:: Mind the gap.

Example::

   literal

.. [1] A footnote.
"""
RST_TEXT = """How mills work

A wheel turns the shaft, see PEP 8 and turn.

Stones may be round.

turn(1)
  # indented

1. one
2. two

wheel
A round thing.

Size: big

Mind the gap.

Example:

literal"""


def test_markdown() -> None:
    result = markup.read_markdown(MARKDOWN)
    assert isinstance(result, Record)
    assert result.text == MARKDOWN_TEXT
    assert (result.date, result.language, result.licence) == ("2019-07-31", "en", "CC0")
    assert result.metadata == {"title": "Mills", "author": "Ann, Bob"}


def test_rst() -> None:
    result = markup.read_rst(RST)
    assert isinstance(result, Record)
    assert result.text.startswith(RST_TEXT)
    assert (result.date, dict(result.metadata)) == ("2000-06-13", {"title": "Mills"})


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ('+++\ntitle = "T"\n+++\nBody.', "T"),
        ("---\ntitle: T\n---\nBody.", "T"),
        ("\ufeff---\r\ntitle: T\r\n---\r\nBody.", "T"),
        ("---\n---\nBody.", None),
        ("---\ntitle: [broken\n---\nBody.", None),
        ("Body.", None),
    ],
)
def test_front_matter(text: str, title: str | None) -> None:
    result = markup.read_markdown(text)
    assert isinstance(result, Record)
    assert result.text.endswith("Body.")
    assert result.metadata.get("title") == title


@pytest.mark.parametrize("text", ["", "---\ntitle: T\n---\n", "<!-- nothing -->", "![x](y.png)"])
def test_a_text_without_words_is_a_failure(text: str) -> None:
    assert markup.read_markdown(text) == Failure(0, "no_text")


@given(st.lists(st.sampled_from([*MARKDOWN.split("\n"), *RST.split("\n"), "::", "   ", ".. x::", "`", "|a|", "===="])))
def test_any_mixture_gives_a_record_or_a_failure(lines: list[str]) -> None:
    for read in (markup.read_markdown, markup.read_rst):
        result = read("\n".join(lines))
        assert isinstance(result, Failure) or result.text.strip()


def test_the_shared_proposals_lose_their_markup(shared_data: Path) -> None:
    with gzip.open(shared_data / "corpus" / "technical.jsonl.gz", "rt") as lines:
        rows = [row for row in map(json.loads, lines) if row["source"].startswith("Python")][::12]
    result = [markup.read_rst(row["text"]) for row in rows]
    texts = [record.text for record in result if isinstance(record, Record)]
    assert len(texts) == len(rows)
    assert not [text for text in texts if ":pep:`" in text or "\n====" in text]
    assert sum(map(len, texts)) > 0.8 * sum(len(row["text"]) for row in rows)


@pytest.mark.parametrize(
    ("text", "body", "title"),
    [
        ("---\ntitle: x\n...\nText.", "Text.", "x"),
        ("---\ntitle: a: b\ntags: [c\n  d]\n---\nText.", "Text.", None),
        ("---\n\nNote: this: that.\n\nA second paragraph of prose.\n\n---\n\nText.",
         "Note: this: that.\n\nA second paragraph of prose.\n\nText.", None),
    ],
)  # fmt: skip
def test_front_matter_and_prose_between_rules(text: str, body: str, title: str | None) -> None:
    record = markup.read_markdown(text)
    assert isinstance(record, Record)
    assert (record.text, record.metadata.get("title")) == (body, title)
