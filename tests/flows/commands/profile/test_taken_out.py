"""Documents that one corpus has and another lacks."""

from collections import Counter

import pytest

from flows.commands.profile import taken_out as module
from flows.commands.profile.taken_out import Share, taken_out
from infra.store.artifacts import ArtifactStore
from tests.flows.commands.profile.small_run import clean, dedup, document

DOCUMENTS = [document(number) for number in range(300)]
REMOVED = {row["id"] for row in DOCUMENTS if row["genre"] == "books"} | {"files/0", "files/3"}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """(store, clean, dedup); dedup removed all books and two of the news."""
    store = str(tmp_path_factory.mktemp("store"))
    before = clean(store, DOCUMENTS)
    return ArtifactStore(store), before, dedup(store, before, DOCUMENTS, REMOVED)


def test_counts_reasons_and_examples(corpora):
    taken, added = taken_out(*corpora)
    assert (taken.missing, taken.documents, taken.rate) == (102, 300, 1.0)
    assert taken.by["genre"] == {"books": Share(100, 100), "news": Share(2, 100)}
    assert taken.by["language"] == {"not known": Share(100, 100), "en": Share(2, 100)}
    assert taken.by["reason"] == {"dedup: near duplicate": Share(102, 102)}
    assert [row.genre for row in taken.examples] == ["books"] * 3 + ["news"] * 2
    texts = {row["id"]: row["text"] for row in DOCUMENTS}
    assert all(row.excerpt == texts[row.document_id][:400] for row in taken.examples)
    assert (added.missing, added.documents, added.examples) == (0, 198, [])


def test_of_a_large_corpus_the_same_documents_are_looked_at_in_both(corpora, monkeypatch):
    monkeypatch.setattr(module, "MAX_IDS", 60)
    taken, added = taken_out(*corpora)
    assert taken.rate == 0.2
    assert added.missing == 0, "a document that is in both is never missing, whatever the sample"
    assert taken.missing == pytest.approx(102, abs=40) and taken.documents == pytest.approx(300, abs=90)
    counted = Counter({name: row.missing for name, row in taken.by["genre"].items()})
    assert counted.total() == taken.missing


def test_corpora_without_a_common_document(corpora, tmp_path):
    store, before, _ = corpora
    other = clean(str(tmp_path), [{**document(1), "id": "elsewhere"}])
    assert taken_out(store, before, other) is None


def test_a_reason_of_a_stage_further_back_is_found_and_none_without_a_reject(corpora, tmp_path):
    store, before, after = corpora
    gone = before.manifest.model_copy(update={"inputs": {"documents": after.ref}})  # as if dedup came before clean
    reasons = taken_out(store, before, type(before)(before.folder, gone))
    assert reasons is not None and reasons[0].missing == 0
    added = taken_out(store, before, clean(str(tmp_path), DOCUMENTS[:1]))
    assert added is not None and added[0].by["reason"] == {"not known": Share(299, 299)}
