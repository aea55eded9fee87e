import gzip
import io
import tracemalloc
from pathlib import Path

import pytest

from stages.ingest.extraction import extracted
from stages.ingest.formats import wikipedia_dump
from stages.ingest.records import Failure, Record
from tests.stages.ingest import sample_files
from tests.stages.ingest.sample_files import read_bytes

DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="en">
<siteinfo><base>https://en.wikipedia.org/wiki/Main_Page</base></siteinfo>
<page><title>Old Mill</title><ns>0</ns><id>12</id><revision><id>99</id><timestamp>2012-03-04T05:06:07Z</timestamp>
<text>The '''mill''' &lt;ref&gt;x&lt;/ref&gt; turns.</text></revision></page>
<page><title>Talk:Old Mill</title><ns>1</ns><id>13</id><revision><text>Chatter.</text></revision></page>
<page><title>Mill</title><ns>0</ns><id>14</id><redirect title="Old Mill"/>
<revision><text>#REDIRECT</text></revision></page>
<page><title>Œuvre &amp; more</title><ns>0</ns><id>15</id><revision><text>Second.</text></revision></page>
</mediawiki>"""


def read(text: str) -> list[Record | Failure]:
    stream = io.BufferedReader(io.BytesIO(text.encode()))  # type: ignore[arg-type]
    return list(extracted(wikipedia_dump.read(stream, 1_000_000), 5.0))


def test_articles() -> None:
    assert read(DUMP) == [
        Record(0, "The mill turns.", id="12", url="https://en.wikipedia.org/wiki/Old_Mill",
               date="2012-03-04", metadata={"title": "Old Mill"}),
        Failure(1, "redirect", "Mill"),
        Record(2, "Second.", id="15", url="https://en.wikipedia.org/wiki/%C5%92uvre_%26_more",
               metadata={"title": "Œuvre & more"}),
    ]  # fmt: skip


def test_a_cut_dump_keeps_what_came_before() -> None:
    results = read(DUMP[: DUMP.index("Second")])
    assert [type(result) for result in results] == [Record, Failure, Failure]
    assert isinstance(results[-1], Failure)
    assert (results[-1].position, results[-1].reason) == (2, "unreadable_from_here")


def test_entities_are_not_expanded() -> None:
    bomb = '<!DOCTYPE m [<!ENTITY a "boom"><!ENTITY b "&a;&a;&a;"><!ENTITY f SYSTEM "file:///etc/hostname">]>'
    results = read(bomb + DUMP.replace("Second.", "Second &b; &f; words."))
    assert not [result for result in results if isinstance(result, Record) and "boom" in result.text]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("<!-- c --><feed xmlns='http://www.w3.org/2005/Atom'><entry/></feed>", "the root element is <feed>; XML is"),
        ("<corpus>" + "<doc>text</doc>" * 300_000 + "</corpus>", "the root element is <corpus>; XML is read if"),
        ("<a:b/>", "the root element is <a:b>"),
        (f"<mediawiki>{'<logitem/>' * 3}</mediawiki>", "<mediawiki> without any <page>; it has: 3 <logitem>"),
    ],
)
def test_other_xml_is_one_failure_with_what_was_found(tmp_path, data, found):
    tracemalloc.start()
    [failure] = read_bytes(tmp_path, "a.xml", data.encode())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (failure.position, failure.reason) == (0, "not_a_dump")
    assert failure.detail.startswith(found)
    assert peak < 2 * 1_000_000 + len(data), "the file's own bytes, written by the test"


PAGES = [
    f"<page><title>Page {number}</title><ns>0</ns><id>{number}</id>"
    f"<revision><text>Prose {number}.</text></revision></page>"
    for number in range(4)
]
HEAD = "<mediawiki><siteinfo><base>https://en.wikipedia.org/wiki/Main_Page</base></siteinfo>\n"


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (PAGES[1].replace("</title>", ""), "unreadable_page"),
        (PAGES[1].replace("</page>", ""), "unreadable_page"),
        (PAGES[1].replace("Prose", "a & b <"), "unreadable_page"),
        (PAGES[1].replace("Prose", "\x00"), "unreadable_page"),
        (PAGES[1].replace("Prose", "x" * 2_000_000), "too_long"),
    ],
)
def test_a_broken_page_leaves_the_others(page: str, reason: str) -> None:
    results = read("\n".join([HEAD, PAGES[0], page, *PAGES[2:], "</mediawiki>"]))
    assert [result.text if isinstance(result, Record) else result.reason for result in results] == [
        "Prose 0.", reason, "Prose 2.", "Prose 3.",
    ]  # fmt: skip
    assert [result.position for result in results] == [0, 1, 2, 3]


def test_a_page_of_a_gigabyte_is_a_failure_and_never_in_memory(tmp_path: Path) -> None:
    """A file of 1 MB took 2.2 GB."""
    page = PAGES[1].partition("Prose")
    with gzip.open(tmp_path / "a.xml.gz", "wb", compresslevel=1) as file:
        file.write(f"{HEAD}{PAGES[0]}{page[0]}".encode())
        for _ in range(200):
            file.write(b"x" * 1_000_000)
        file.write(f"{page[2]}{PAGES[2]}</mediawiki>".encode())
    tracemalloc.start()
    results = sample_files.read(tmp_path / "a.xml.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [result.text if isinstance(result, Record) else result.reason for result in results] == [
        "Prose 0.", "too_long", "Prose 2.",
    ]  # fmt: skip
    assert peak < 15e6


def test_a_dump_that_ends_between_pages_ends_early(tmp_path: Path) -> None:
    *records, last = read_bytes(tmp_path, "a.xml", f"{HEAD}{''.join(PAGES)}".encode())
    assert len(records) == 4
    assert (last.position, last.reason) == (4, "unreadable_from_here")
    assert isinstance(last, Failure)
    assert last.lost_bytes > 400


def test_a_dump_in_another_language_loses_categories_images_and_references() -> None:
    names = "".join(
        f'<namespace key="{key}">{name}</namespace>' for key, name in [(0, ""), (6, "Datei"), (14, "Kategorie")]
    )
    page = "[[Datei:M.jpg|mini|Im Winter]]Die Mühle am [[Fluss]], ''[[CSI: Miami]]''.[[Kategorie:Mühle]]"
    dump = f"<mediawiki><siteinfo><namespaces>{names}</namespaces></siteinfo>{PAGES[0]}</mediawiki>"
    [record] = read(dump.replace("Prose 0.", page))
    assert isinstance(record, Record)
    assert record.text == "Die Mühle am Fluss, CSI: Miami."


def test_the_shared_dumps(shared_data: Path) -> None:
    texts = []
    for name in ("wiki_de/de.xml", "wiki_colon/en.xml"):
        [record] = sample_files.read(shared_data / "odd_inputs" / name)
        assert isinstance(record, Record)
        texts.append(record.text)
    assert texts[0].endswith("steht unter Denkmalschutz.\n\nGeschichte\n\nDie Mühle brannte zweimal ab.")
    assert "in CSI: Miami and in a musical about New York. As a child she played Ys: The Oath in Felghana" in texts[1]
    assert texts[1].endswith("She saw Alien: Covenant twice.")


def page(title: str, text: str, more: str = "", model: str = "") -> str:
    model = f"<model>{model}</model>" if model else ""
    return f"<page><title>{title}</title><id>1</id><revision>{model}<text>{text}</text></revision>{more}</page>"


@pytest.mark.parametrize("model", ["wikibase-item", "json", "Scribunto", "sanitized-css", "flow-board"])
def test_pages_without_wikitext_are_rejects(model: str) -> None:
    results = read(f"<mediawiki>{page('Q1', '{&quot;a&quot;: {}}', model=model)}{page('A', 'Prose.')}</mediawiki>")
    assert results[0] == Failure(0, "not_wikitext", f"content model {model} of Q1")
    assert isinstance(results[1], Record)


def test_the_last_revision_of_a_history_is_read() -> None:
    later = "<revision><timestamp>2021-01-02T03:04:05Z</timestamp><text>New.</text></revision>"
    slots = "<revision><text>Main.</text><content><role>mediainfo</role><text>{}</text></content></revision>"
    results = read(f"<mediawiki>{page('A', 'Old.', later)}{page('B', 'Old.', slots)}</mediawiki>")
    assert [(record.text, record.date) for record in results] == [("New.", "2021-01-02"), ("Main.", None)]  # type: ignore[union-attr]


def test_namespaces_of_dumps_before_0_6_are_those_of_the_titles() -> None:
    names = "<namespace key='1'>Talk</namespace><namespace key='3'>User talk</namespace><namespace key='0' />"
    titles = ("Talk:Mill", "user_talk:Ann", "CSI: Miami", "Talk")
    dump = f"<mediawiki><siteinfo><namespaces>{names}</namespaces></siteinfo>{''.join(page(t, t) for t in titles)}"
    assert [record.metadata["title"] for record in read(dump + "</mediawiki>")] == ["CSI: Miami", "Talk"]  # type: ignore[union-attr]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
def test_a_recoded_dump_may_declare_its_former_encoding(tmp_path: Path, encoding: str) -> None:
    dump = f'<?xml version="1.0" encoding="{encoding}"?>\n<mediawiki>{page("A", "Mühle")}</mediawiki>'
    [record] = read_bytes(tmp_path, "a.xml", dump.encode(encoding))
    assert isinstance(record, Record), record
    assert record.text == "Mühle"


def test_the_root_of_the_shortest_xml_is_named() -> None:
    [failure] = read("<a/>")
    assert failure.reason == "not_a_dump"  # type: ignore[union-attr]
