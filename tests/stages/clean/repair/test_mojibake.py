import gzip
import json
import re
from itertools import islice

import ftfy
import ftfy.badness
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.clean.repair.mojibake import FIRST_HARMLESS, FTFY_CONFIG, LAST_HARMLESS, repair

# Everything that takes part in mojibake, in entities and in line ends, and a few that do not.
SUSPICIOUS = sorted(
    set("ÃÂÎÐØÙœŒ€™‚Ä√≈×²³àвЂВГРСΒΓΞΟβāўŸŠžš•“”‘’«»¿¡°·´—–…½±†‡\xa0\xad")
    | set("abeXZ .,;:?!&#<>19\n\r\t\f\x00\x1b[m\x7f\x80\x85\x9d\u2028\u2029\ufeff\ufffc\ufffd")
    | set("e\u0301\u0308\u212b中한\U0001f600")
)
PIECES = ["&amp;", "&lt;", "&#233;", "&EACUTE;", "&nosuch;", "&amp;lt;", "&" + "a" * 25 + ";", "&#;", "<b>", "donâ€™t",
          "schÃ¶n", "Ã\xa0 la", "vu Â© là", "\x1b[31m", "\n", "\r\n", " ", "x", "é", "e\u0301", "“", "”"]  # fmt: skip


@given(st.text(SUSPICIOUS))
@example("&lt;&amp;lt;\n&amp;")
@example("<\n&amp;")
@example("a<&amp;\n&amp;")
@example("&#55357;")
def test_equals_ftfy_on_text_rich_in_mojibake(text):
    assert repair(text) == ftfy.fix_text(text, FTFY_CONFIG)


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_equals_ftfy_on_entities_tags_and_line_ends(text):
    assert repair(text) == ftfy.fix_text(text, FTFY_CONFIG)


@given(st.text(st.characters(codec=None)))
def test_equals_ftfy_on_any_text(text):
    assert repair(text) == ftfy.fix_text(text, FTFY_CONFIG)


@given(st.text(), st.sampled_from(["latin-1", "windows-1252", "windows-1251", "macroman", "cp437"]))
def test_equals_ftfy_on_text_that_was_decoded_wrongly(text, encoding):
    broken = text.encode("utf-8", "replace").decode(encoding, "replace")
    assert repair(broken) == ftfy.fix_text(broken, FTFY_CONFIG)


@pytest.mark.parametrize("length", [999_998, 999_999, 1_000_000, 1_000_001])
def test_lines_of_a_million_characters_are_cut_as_ftfy_cuts_them(length):
    text = "x" * (length - 4) + "schÃ¶n\n&amp;"
    assert repair(text) == ftfy.fix_text(text, FTFY_CONFIG)


def test_every_character_between_ascii_neighbors():
    """No single character but those that the compiled pass looks for is bad on its own."""
    for point in range(0x80, 0x10000):
        for text in (f"a{chr(point)} ", f" {chr(point)}b", f"{chr(point)}\n"):
            if repair(text) is text:
                assert ftfy.fix_text(text, FTFY_CONFIG) == text, hex(point)


def test_the_heuristic_knows_no_character_that_counts_as_harmless():
    points = {ord(character) for character in ftfy.badness.BADNESS_RE.pattern}
    assert not any(FIRST_HARMLESS <= point <= LAST_HARMLESS or point > 0xFFFF for point in points)
    assert re.search(r"\\[uUN]", ftfy.badness.BADNESS_RE.pattern) is None


@pytest.mark.parametrize(
    "name", ["books", "education", "forum", "mojibake_cases", "news", "speech", "technical", "web", "web_html", "wiki"]
)
def test_equals_ftfy_on_real_text(shared_data, name):
    with gzip.open(shared_data / "corpus" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in islice(file, 0, None, 40)]
    assert [repair(text) for text in texts] == [ftfy.fix_text(text, FTFY_CONFIG) for text in texts]
