import itertools
import uuid
from collections import namedtuple
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.store.artifact_writer import table_bytes
from infra.store.filesystem import Folder
from infra.workers import exchange
from infra.workers.partitions import Partition, PartitionMap
from stages.common.minhash_config import MinHashConfig
from stages.dedup.config import SurvivorConfig
from stages.dedup.near_duplicates import components, pipeline, verification
from stages.dedup.near_duplicates.candidates import NearDuplicates
from stages.dedup.near_duplicates.lsh_buckets import Pairs
from stages.dedup.near_duplicates.signature_index import Block, SignatureFile, signed_schema
from stages.dedup.part_files import PartFile
from stages.dedup.stage import DedupStage

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
        name = "" if first >= earlier_from else f"{first:05d}.parquet"
        files.append(SignatureFile(PartFile(folder, f"{first}"), first, end - first, name))
    return files


def memory_map() -> PartitionMap:
    return PartitionMap(Folder(f"memory://store-{uuid.uuid4().hex}"), "dedup", DedupStage.output, "test-run")


def written_edges(work, edges, maps):
    """Edges (document number, document number, similarity), as a partition writes them."""
    edges = sorted((*sorted((first, second)), similarity) for first, second, similarity in edges)
    columns = np.array(edges, dtype=float).reshape(-1, 3).T
    pairs = Pairs(columns[0].astype(np.int64), columns[1].astype(np.int64))
    return maps.map(
        "given", lambda _, out: verification._write_edges(work, pairs, columns[2], out), [Partition("a", 0)]
    )


def fates(documents, pairs, rule=None, bounds=(), earlier_from=10**9):
    """Id -> (fate, survivor, similarity); pairs are (id, id, similarity)."""
    place = {name: number for number, name in enumerate(documents)}
    files = signature_files(documents, list(bounds), earlier_from)
    work, maps = NearDuplicates(None, NEAR, tuple(Block((file,)) for file in files)), memory_map()
    edges = written_edges(work, [(place[first], place[second], value) for first, second, value in pairs], maps)
    results = pipeline._fates(work, edges, rule or SurvivorConfig(), maps)
    rows = [row for result in results for row in result.read_table(result.marker.files[0].path).to_pylist()]
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
@settings(max_examples=25)
def test_fates_depend_neither_on_the_order_of_documents_and_edges_nor_on_files(rows, data):
    documents = {f"d{number:02d}": row for number, row in enumerate(rows)}
    names = st.sampled_from(list(documents))
    pairs = data.draw(st.lists(st.tuples(names, names, st.sampled_from([0.8, 0.9, np.nan])), max_size=10))
    pairs = [pair for pair in pairs if pair[0] != pair[1]]
    rule = SurvivorConfig(source_priority=("b",))
    expected = fates(documents, pairs, rule)
    order = data.draw(st.permutations(list(documents)))
    bounds = sorted(data.draw(st.sets(st.integers(1, len(rows)), max_size=3)))
    with patch.object(components, "DOCUMENTS_AT_ONCE", data.draw(st.sampled_from([0, 100]))):
        again = fates({name: documents[name] for name in order}, data.draw(st.permutations(pairs)), rule, bounds)
    assert again == expected
    clusters = {name: row[1] or name for name, row in expected.items()}
    assert all(clusters[first] == clusters[second] for first, second, _ in pairs)
    for name, survivor in clusters.items():
        key = [(row.source != "b", -(row.quality or -9), -row.bytes) for row in (documents[name], documents[survivor])]
        assert (key[1], survivor) <= (key[0], name)
        assert expected[survivor][0] == "survivor"


def smallest_in_component(count, edges):
    """Union-find in plain Python."""
    parent = list(range(count))

    def root(document):
        while parent[document] != document:
            document = parent[document]
        return document

    for first, second in edges:
        parent[max(root(first), root(second))] = min(root(first), root(second))
    return [root(document) for document in range(count)]


def graphs():
    """Random pairs; chains and stars, the documents of which are numbered in any order."""
    numbers = st.integers(0, 29)
    pairs = st.lists(st.tuples(numbers, numbers).filter(lambda pair: pair[0] != pair[1]), max_size=40)
    chain = st.permutations(range(30)).map(lambda order: list(itertools.pairwise(order)))
    star = st.tuples(numbers, pairs).map(lambda drawn: [(drawn[0], n) for n in range(30) if n != drawn[0]] + drawn[1])
    return pairs | chain | star | st.just([(number, number + 1) for number in range(29)])


@given(graphs(), st.sampled_from([0, 10**6]), st.sampled_from([1, 3, 10]), st.sampled_from([2, 256]))
@settings(max_examples=25)
def test_components_are_those_of_union_find_in_memory_and_by_stars(edges, at_once, blocks, fan_out):
    bounds = [30 * number // blocks for number in range(blocks + 1)]
    files = [SignatureFile(None, first, end - first, "x") for first, end in itertools.pairwise(bounds)]
    work, maps = NearDuplicates(None, NEAR, tuple(Block((file,)) for file in files)), memory_map()
    with (
        patch.object(components, "DOCUMENTS_AT_ONCE", at_once),
        patch.object(components, "EDGES_AT_ONCE", 5),
        patch.object(exchange, "FAN_OUT", fan_out),
    ):
        decided = written_edges(work, [(*edge, 1.0) for edge in edges], maps)
        sent = verification.edge_exchange(work).collect(maps, "edges", decided, verification.EDGES)
        links = components.find_components(work, sent, len(edges), maps)
    clusters = list(range(30))
    for block in range(blocks):
        members = pipeline.clusters.clustered(links, block)
        assert all(work.block_of(members.documents) == block)
        for document, cluster in zip(members.documents.tolist(), members.clusters.tolist(), strict=True):
            clusters[document] = cluster
    assert clusters == smallest_in_component(30, edges)


def test_a_chain_of_thousands_takes_few_rounds():
    count = 4000
    order = np.random.default_rng(1).permutation(count)
    file = SignatureFile(None, 0, count, "x")
    work, maps = NearDuplicates(None, NEAR, (Block((file,)),)), memory_map()
    with patch.object(components, "DOCUMENTS_AT_ONCE", 0):
        decided = written_edges(work, [(*edge, 1.0) for edge in itertools.pairwise(order)], maps)
        sent = verification.edge_exchange(work).collect(maps, "edges", decided, verification.EDGES)
        links = components.find_components(work, sent, count - 1, maps)
    assert not pipeline.clusters.clustered(links, 0).clusters.any()
    assert len(maps.folder.names("parts")) < 2 * 20
