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
TEXT = """The old mill (Mühle) is a mill in York. It
has\xa0two wheels and H2O.

History

- Built in 1650
- Burnt
- counted

Text under the table, all mills, & more."""


def test_prose_stays() -> None:
    result = wikitext.read(PAGE)
    assert isinstance(result, Record)
    assert result.text == TEXT


@pytest.mark.parametrize(
    "text",
    ["#REDIRECT [[Mill]]", "# redirect: [[Mill]]", "{{r}}\n#WEITERLEITUNG [[Mühle]]", "#重定向[[磨坊]]",
     "#перенаправление [[Мельница]]", "#تحويل [[طاحونة]]"],
)  # fmt: skip
def test_redirects(text: str) -> None:
    assert wikitext.read(text) == Failure(0, "redirect")


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("# Redirect is a word\n# Alih is another", "- Redirect is a word\n- Alih is another"),
        ("L'''Iliade'' est '''un''' livre\ndell'''Orlando''", "L'Iliade est un livre\ndell'Orlando"),
        ("l'''Iliade''", "l'Iliade"), ("'''''both''''' and ''''quoted''''", "both and 'quoted'"),
        ("&lt;ref&gt; is &amp;lt;, AT&amp;T, ?a=1&copy=2 &times; 3", "<ref> is &lt;, AT&T, ?a=1&copy=2 × 3"),
        ("vector<int> and List<String>, <stdio.h>", "vector<int> and List<String>, <stdio.h>"),
        ("<nowiki>[[no link]] {{no}} ''x''</nowiki> &#91;&#91;a&#93;&#93;", "[[no link]] {{no}} ''x'' [[a]]"),
        ("a\n<source lang=cpp>\nfor (i<n) {{\n    v<int> x;\n| a\n}}\n\n\n__FILE__\n</source>b",
         "a\n\nfor (i<n) {{\n    v<int> x;\n| a\n}}\n\n\n__FILE__\nb"),
        ("__NOTOC__ a __FILE__ __init__\n__БЕЗ_ОГЛАВЛЕНИЯ__\nb", "a __FILE__ __init__\n\nb"),
        ("-{zh-hans:计算机;zh-hant:電腦}-是-{A|zh-cn:软件; zh-tw:軟體;}-、-{R|原文}-、-{H|zh-cn:甲;zh-tw:乙}-完",
         "计算机是软件、原文、完"),
        ("-{[[机|zh:机器]]}- x-{sr-ec:Ћ; sr-el:Ć}- -{a-{b}-c}- -{A|u=>zh-cn:v;w=>zh-tw:x}-", "机器 xЋ abc v"),
        ("the [[:de:Mühle|mill]], [[:Category:Mills|mills]]; [[:Category:Wheels]]", "the mill, mills;"),
    ],
)  # fmt: skip
def test_text_that_looks_like_markup_stays(text: str, prose: str) -> None:
    assert wikitext.read(text) == Record(0, prose)


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("At {{convert|1300|mi|km}}, Alabama has", "At 1300 mi, Alabama has"),
        ("{{cvt|5|to|10|km|mi}}, {{convert|5|ft|8|in|cm}}, {{val|3.5|u=m}}", "5 to 10 km, 5 ft 8 in, 3.5 m"),
        ("L'{{japonais|'''aïkibudo'''|合気武道|aikibudō}} est", "L'aïkibudo est"),
        ("Belgium ({{lang-nl|België}}, {{IPA|x}}; {{lang|fr|''Belgique''}})", "Belgium (België; Belgique)"),
        ("{{Nowrap|a {{lang|de|[[Mühle|M]]}}}}{{snd}}{{formatnum:5000}} in {{circa|1900}}{{cite|x}}{{flagicon|DE}}",
         "a M – 5000 in c. 1900"),
        ("{{tsl|en|Mill|磨坊}}和{{le|风车|Windmill}}、{{date|1|mai|2020}}", "磨坊和风车、1 mai 2020"),
        ("{{Infobox|a=b}}{{lang}}{{lang|fr}}{{convert}}{{convert|x|km}}{{Citation needed}} text", "text"),
    ],
)  # fmt: skip
def test_words_in_templates_of_sentences_stay(text: str, prose: str) -> None:
    assert wikitext.read(text) == Record(0, prose)


@pytest.mark.parametrize(("text", "reason"), [("{{only a template}}", "no_text"), ("x" * 2_000_001, "too_long")])
def test_pages_without_prose(text: str, reason: str) -> None:
    result = wikitext.read(text)
    assert isinstance(result, Failure)
    assert result.reason == reason


@pytest.mark.parametrize(
    ("link", "text"),
    [
        ("[[CSI: Miami]]", "CSI: Miami"), ("[[Re:Zero]]", "Re:Zero"), ("[[NYC: The Musical|a musical]]", "a musical"),
        ("[[Ys: The Oath in Felghana]]", "Ys: The Oath in Felghana"), ("[[SOS: Save Our Ship]]", "SOS: Save Our Ship"),
        ("[[War: A Play]]", "War: A Play"), ("[[Alien: Covenant]]", "Alien: Covenant"), ("[[:Re:Zero]]", "Re:Zero"),
        ("[[de:Mühle]]", ""), ("[[zh-min-nan:Chúi]]", ""), ("[[simple:Mill]]", ""), ("[[be-tarask:Млын]]", ""),
        ("[[File:A.jpg|thumb|b]]", ""), ("[[image:A.jpg]]", ""), ("[[ Category : Mills ]]", ""),
        ("[[user talk:Ann|Ann]]", ""), ("[[Template_talk:X]]", ""),
        ("[[Datei:A.jpg|mini|hochkant|b]]", ""), ("[[Kategorie:Bauwerk|B]]", ""), ("[[Catégorie:Moulin]]", ""),
        ("[[Файл:A.jpg|мини|слева|b]]", ""), ("[[Категория:Мельницы]]", ""), ("[[تصنيف:طواحين]]", ""),
        ("[[分类:磨坊]]", ""), ("[[ファイル:A.jpg|サムネイル|b]]", ""), ("[[Thể loại:Cối xay]]", ""),
        ("[[श्रेणी:चक्की]]", ""),
    ],
)  # fmt: skip
def test_links_to_titles_with_colons_are_prose_and_those_to_other_namespaces_are_not(link: str, text: str) -> None:
    result = wikitext.read(f"Before {link} after.")
    assert isinstance(result, Record)
    assert result.text == " ".join(f"Before {text} after.".split())


def test_the_namespaces_of_a_dump_take_the_place_of_those_of_all_languages() -> None:
    text = "A [[Mall: The Musical]], [[Fil:A.jpg|mini|b]], [[Category:C]] and [[Kvarn:Gammal]]."
    assert wikitext.read(text, ["Fil", "Kategori"]) == Record(0, "A Mall: The Musical, , and Kvarn:Gammal.")
    assert wikitext.read(text, ["Kvarn"]) == Record(0, "A Mall: The Musical, mini|b, and .")


@pytest.mark.parametrize(
    ("prose", "headings"),
    [
        ("Die Mühle brannte zweimal ab.", ["Literatur", "Weblinks", "Einzelnachweise"]),
        ("Le moulin a brûlé deux fois.", ["Notes et références", "Voir aussi", "Liens externes"]),
        ("Мельница горела дважды.", ["Примечания", "Литература", "Ссылки"]),
        ("磨坊两次被烧毁，后来又重新建起来了。" * 6, ["参考文献", "外部链接"]),
        ("水車小屋は二度焼けた。" * 6, ["脚注", "関連項目", "外部リンク"]),
        ("احترقت الطاحونة مرتين.", ["مراجع", "وصلات خارجية"]),
        ("El molino ardió dos veces.", ["Véase también", "Referencias", "Enlaces externos"]),
    ],
)
def test_reference_sections_end_a_page_in_every_language(prose: str, headings: list[str]) -> None:
    sections = "".join(f"\n\n== {heading} ==\n* [http://mill.org Link] und ''Buch''" for heading in headings)
    assert wikitext.read(f"{prose}{sections}\n") == Record(0, prose)


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
