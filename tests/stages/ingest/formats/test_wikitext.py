import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.ingest.formats import wikitext
from stages.ingest.records import Failure, Record

PAGE = """{{Infobox mill|name=Old Mill|size={{convert|3|m}}}}
[[File:Mill.jpg|thumb|A '''caption''' with a [[link]]]]
The '''old mill''' ({{lang|de|Mühle}}) is a [[watermill|mill]] in [[York]].<ref name="a">Book, p. 3</ref> It
has&nbsp;two <!-- hidden --> wheels and H<sub>2</sub>O.

== History ==
* Built in [http://example.org 1650]
* Burnt
# counted
{| class="wikitable"
! Head
|-
| cell
|}
<gallery>File:X.jpg</gallery>
__NOTOC__
Text under the table, [[:Category:Mills|all mills]], &amp; more.

== References ==
{{reflist}}
* [http://example.org A link]
[[Category:Mills]]
[[de:Mühle]]
"""
TEXT = """The old mill is a mill in York. It
has\xa0two wheels and H2O.

History

- Built in 1650
- Burnt
- counted

Text under the table, , & more."""


def test_prose_stays() -> None:
    result = wikitext.read(PAGE)
    assert isinstance(result, Record)
    assert result.text == TEXT


@pytest.mark.parametrize("text", ["#REDIRECT [[Mill]]", "# redirect: [[Mill]]", "{{r}}\n#WEITERLEITUNG [[Mühle]]"])
def test_redirects(text: str) -> None:
    assert wikitext.read(text) == Failure(0, "redirect")


@pytest.mark.parametrize(("text", "reason"), [("{{only a template}}", "no_text"), ("x" * 2_000_001, "too_long")])
def test_pages_without_prose(text: str, reason: str) -> None:
    result = wikitext.read(text)
    assert isinstance(result, Failure)
    assert result.reason == reason


@given(
    st.lists(st.sampled_from(["[[", "]]", "{{", "}}", "|", "'''", "<ref>", "</ref>", "{|", "|}", "\n", "=", "a b "]))
)
def test_any_markup_gives_a_record_or_a_failure(tokens: list[str]) -> None:
    result = wikitext.read("".join(tokens))
    assert isinstance(result, Failure) or result.text


def test_no_markup_is_left_in_the_shared_pages(shared_data: Path) -> None:
    with gzip.open(shared_data / "corpus" / "wiki.jsonl.gz", "rt") as lines:
        pages = [row["text"] for row in map(json.loads, lines) if "dump" in row["source"]]
    result = [wikitext.read(text) for text in pages if len(text) > 2_000][:25]
    texts = [record.text for record in result if isinstance(record, Record)]
    assert len(texts) == 25
    for mark in ("{{", "}}", "[[", "]]", "<ref", "'''"):
        assert not [text for text in texts if mark in text], mark
