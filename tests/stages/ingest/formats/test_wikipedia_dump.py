import io
import tracemalloc

import pytest

from stages.ingest.formats import wikipedia_dump
from stages.ingest.records import Failure, Record
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
    return list(wikipedia_dump.read(io.BytesIO(text.encode())))


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
