"""Topics of two corpora together."""

import random

import pytest

from flows.commands.profile.common_topics import with_common_topics
from flows.commands.profile.difference import difference
from flows.report.profile.figures import Figures
from tests.flows.commands.profile.small_run import clean, dedup
from tests.flows.report.profile.tables import measure, measures

WORDS = {"law": "court judge verdict appeal jury lawyer trial", "sport": "team match season player coach stadium goal"}


def document(number: int, topic: str) -> dict[str, str]:
    words = [f"{word}{letter}" for word in WORDS[topic].split() for letter in "abcdefghij"]  # none is a function word
    text = " ".join(random.Random(number).sample(words, 12))
    return {"id": f"{topic}/{number}", "text": text, "source": "tests", "path": "p", "genre": "news"}


def test_a_topic_that_was_taken_out_is_a_mover_though_each_profile_has_topics_of_its_own(tmp_path):
    documents = [document(number, topic) for topic in WORDS for number in range(60)]
    before = clean(str(tmp_path), documents)
    after = dedup(str(tmp_path), before, documents, [f"law/{number}" for number in range(40)])
    counts = [measure("all", "documents", number, "documents") for number in (120, 80)]
    topics = [measure("all", "topics.weight", 1, "share", name) for name in ("one, two", "three, four")]
    own = [Figures.of(measures(rows)) for rows in zip(counts, topics, strict=True)]
    assert not difference(*own).changes
    common = with_common_topics((own[0], own[1]), (before, after), {"sampled_documents": 400, "topics": 2})
    found = {row.item: row for row in difference(*common).changes}
    law = next(row for name, row in found.items() if name.split(", ")[0][:-1] in WORDS["law"].split())
    assert (law.first_share, law.second_share) == pytest.approx((0.5, 0.25), abs=0.05)
    assert law.excludes_zero
    assert sum(row.first_share for row in found.values()) == pytest.approx(1)


def test_too_little_text_has_no_common_topics(tmp_path):
    corpus = clean(str(tmp_path), [document(1, "law")])
    figures = Figures.of(measures([measure("all", "documents", 1, "documents")]))
    assert with_common_topics((figures, figures), (corpus, corpus), {"sampled_documents": 400}) == (figures, figures)
