import uuid
from collections import namedtuple
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import EnvironmentProblem
from infra.store.artifacts import table_bytes
from infra.store.filesystem import Folder
from stages.dedup.near_duplicates import clusters as module
from stages.dedup.near_duplicates.clusters import Components, best_of_clusters, fates_of
from stages.dedup.near_duplicates.minhash_config import MinHashConfig, SurvivorConfig
from stages.dedup.near_duplicates.signature_index import SignatureFile, signed_schema
from stages.dedup.near_duplicates.verification import edges_batch
from stages.dedup.part_files import PartFile

Document = namedtuple("Document", "source quality bytes exact")
NEAR = MinHashConfig(permutations=2, bands=1, rows=1)


def signature_files(documents: dict[str, Document], bounds: list[int], earlier_from: int) -> list[SignatureFile]:
    folder, files = Folder(f"memory://signed-{uuid.uuid4().hex}"), []
    names = list(documents)
    for first, end in zip([0, *bounds], [*bounds, len(names)], strict=True):
        rows = [
            {"id": name.partition("/")[0], **documents[name]._asdict(), "shingles": 1, "signature": [0, 0]}
            for name in names[first:end]
        ]
        rows = [{**row, "exact": [row["exact"], 0]} for row in rows]
        folder.write(f"{first}", table_bytes("a.arrow", pa.Table.from_pylist(rows, signed_schema(NEAR))))
        files.append(SignatureFile(PartFile(folder, f"{first}"), first, end - first, first >= earlier_from))
    return files


def fates(documents, pairs, rule=None, bounds=(), earlier_from=10**9):
    """Id -> (fate, survivor, similarity); pairs are (id, id, similarity)."""
    place = {name: number for number, name in enumerate(documents)}
    files = signature_files(documents, list(bounds), earlier_from)
    components = Components(len(documents))
    edges = [(*sorted((place[first], place[second])), similarity) for first, second, similarity in pairs]
    first, second, similarity = (
        (np.array(column) for column in zip(*edges, strict=True)) if edges else [np.array([], int)] * 3
    )
    components.join(edges_batch(first.astype(np.int64), second.astype(np.int64), similarity.astype(float)))
    components.finish()
    best = best_of_clusters(components, files, rule or SurvivorConfig())
    rows = [row for file in files if not file.is_earlier for row in fates_of(components, file, best).to_pylist()]
    return {name: tuple(row.values()) for name, row in zip(documents, rows, strict=False)}


def test_the_rule_by_hand():
    documents = {
        "plain": Document("web", None, 900, 1),
        "good": Document("web", 0.9, 100, 2),
        "wiki": Document("wiki", 0.1, 50, 3),
        "copy": Document("web", None, 900, 1),
        "alone": Document("web", None, 5, 9),
    }
    pairs = [("plain", "good", 0.8), ("good", "wiki", 0.9), ("copy", "plain", 1.0)]

    def stays(**rule):
        result = fates(documents, pairs, SurvivorConfig(**rule))
        assert result["alone"] == ("survivor", None, None)
        return next(name for name, (fate, *_) in result.items() if fate == "survivor")

    assert stays() == "good"
    assert stays(source_priority=("wiki",)) == "wiki"
    assert stays(source_priority=("wiki",), order=("length", "source_priority")) == "copy"
    assert stays(order=()) == "copy"
    result = fates(documents, pairs, SurvivorConfig(order=("length",)))
    assert result["plain"] == ("exact_duplicate", "copy", 1.0)
    assert result["good"] == ("near_duplicate", "copy", 0.9)


def test_earlier_survivors_win_over_any_new_document():
    documents = {"new": Document("best", 1.0, 999, 1), "old": Document("web", None, 1, 2)}
    rule = SurvivorConfig(source_priority=("best",))
    assert fates(documents, [("new", "old", 0.8)], rule, [1], 1) == {"new": ("near_duplicate", "old", 0.8)}


DOCUMENTS = st.lists(
    st.builds(
        Document, st.sampled_from("ab"), st.none() | st.sampled_from([0.1, 0.9]), st.integers(1, 3), st.integers(1, 4)
    ),
    min_size=1,
    max_size=12,
)


@given(DOCUMENTS, st.data())
def test_fates_depend_neither_on_the_order_of_documents_and_edges_nor_on_files(rows, data):
    documents = {f"d{number:02d}": row for number, row in enumerate(rows)}
    names = st.sampled_from(list(documents))
    pairs = data.draw(st.lists(st.tuples(names, names, st.sampled_from([0.8, 0.9, np.nan])), max_size=10))
    pairs = [pair for pair in pairs if pair[0] != pair[1]]
    rule = SurvivorConfig(source_priority=("b",))
    expected = fates(documents, pairs, rule)
    order = data.draw(st.permutations(list(documents)))
    bounds = sorted(data.draw(st.sets(st.integers(1, len(rows)), max_size=3)))
    with patch.object(module, "_MEMBERS_AT_ONCE", 2):
        again = fates({name: documents[name] for name in order}, data.draw(st.permutations(pairs)), rule, bounds)
    assert again == expected
    clusters = {name: row[1] or name for name, row in expected.items()}
    assert all(clusters[first] == clusters[second] for first, second, _ in pairs)
    for name, survivor in clusters.items():
        key = [(row.source != "b", -(row.quality or -9), -row.bytes) for row in (documents[name], documents[survivor])]
        assert (key[1], survivor) <= (key[0], name)
        assert expected[survivor][0] == "survivor"


@given(st.integers(1, 30), st.data())
def test_components_are_those_of_a_search(count, data):
    number = st.integers(0, count - 1)
    edges = [tuple(sorted(edge)) for edge in data.draw(st.lists(st.tuples(number, number), max_size=30))]
    reach = {document: {document} for document in range(count)}
    for _ in range(count):
        for first, second in edges:
            reach[first] = reach[second] = reach[first] | reach[second]
    components = Components(count)
    for first, second in edges:
        components.join(edges_batch(np.array([first]), np.array([second]), np.array([1.0])))
    components.finish()
    assert components.parent.tolist() == [min(reach[document]) for document in range(count)]
    assert components.is_shared.tolist() == [len(reach[document]) > 1 for document in range(count)]


def test_too_many_documents_for_the_memory_are_refused():
    with pytest.raises(EnvironmentProblem, match=r"100,000,000,000,000 documents need .* GB in one process"):
        Components(10**14)
