"""Near duplicates from documents to fates: however they are divided, wherever it runs, killed or not."""

import gzip
import json
import random
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from data_schemas.artifact_kinds import CORPUS
from data_schemas.errors import ConfigError, NotFoundError
from infra.progress import SilentListener
from infra.store.artifacts import ArtifactStore
from infra.workers import exchange
from infra.workers.partitions import Engine, PartitionMap, PartitionWriter
from stages.common.minhash import shingle_sets
from stages.common.minhash_config import MinHashConfig
from stages.dedup.config import SurvivorConfig
from stages.dedup.near_duplicates import candidates, components, lsh_buckets, signing, verification
from stages.dedup.near_duplicates.pipeline import fates_of_signed, find_fates
from stages.dedup.near_duplicates.signature_index import fingerprint
from stages.dedup.near_duplicates.signing import sign_documents, write_index
from stages.dedup.part_files import open_table
from stages.stage import StageContext
from tests.stores import commit, documents_artifact


def memory() -> str:
    return f"memory://store-{uuid.uuid4().hex}"


def fates(
    url: str,
    parts: Sequence[Mapping[str, str]],
    near: MinHashConfig | None = None,
    against: Sequence[str] = (),
    engine: Engine = "inline",
    key: str = "b",
    index: bool = False,
) -> dict[str, tuple]:
    """Id -> (fate, survivor, similarity); with `index`, a dedup artifact is committed."""
    near, documents = near or MinHashConfig(), documents_artifact(url, list(parts))
    names = [path.removeprefix("documents/") for path in documents.paths("documents/*")]
    out = ArtifactStore(url).writer("dedup", key * 64, "test-run", CORPUS)
    maps = PartitionMap(out.folder, "dedup", CORPUS, "test-run", engine, 2)
    context = StageContext("test-run", maps, out.folder, SilentListener())
    tables = find_fates(documents, names, near, SurvivorConfig(), against, context)
    if index:
        for result in write_index(documents, names, near, tables, context):
            result.adopt_into(out)
        with patch.object(type(CORPUS), "check_files"):
            commit(ArtifactStore(url), out, "dedup", key * 64, CORPUS)
    ids = [name for part in parts for name in part]
    rows = pa.concat_tables([open_table(table.part) for table in tables]).to_pylist()
    return dict(zip(ids, (tuple(row.values()) for row in rows), strict=True))


def corpus() -> dict[str, str]:
    """90 texts: 30 originals, one near and one far version of each, some copies, and texts without words."""
    generator, result = random.Random(3), {}
    for number in range(30):
        words = [f"w{generator.randrange(10**6)}" for _ in range(200)]
        result[f"a{number:02d}"] = " ".join(words)
        for kind, share in (("near", 0.004 * (number % 5)), ("far", 0.2)):
            changed = [f"x{generator.randrange(10**6)}" if generator.random() < share else word for word in words]
            result[f"{kind}{number:02d}"] = " ".join(changed)
    result |= {
        "copy1": result["a01"].upper(),
        "copy2": result["a02"].replace(" ", "\n"),
        "e1": "",
        "e2": " ",
        "e3": "?!",
    }
    return result


def divided(documents: Mapping[str, str], files: int) -> list[dict[str, str]]:
    order = random.Random(files).sample(sorted(documents), len(documents))
    return [{name: documents[name] for name in order[number::files]} for number in range(files)]


def jaccard(first: str, second: str) -> float:
    a, b = (set(hashes) for hashes in shingle_sets(pa.array([first, second]), 5).to_pylist())
    return len(a & b) / len(a | b)


def test_every_pair_above_the_threshold_is_joined_and_no_other():
    documents = corpus()
    result = fates(memory(), divided(documents, 3))
    for number in range(30):
        first, second = f"a{number:02d}", f"near{number:02d}"
        clusters = [result[name][1] or name for name in (first, second, f"far{number:02d}")]
        assert (clusters[0] == clusters[1]) == (jaccard(documents[first], documents[second]) >= 0.8)
        assert clusters[2] == f"far{number:02d}"
    assert result["copy1"][1:] == ("a01", 1.0) or result["a01"][1:] == ("copy1", 1.0)
    assert result["e2"][0] == "survivor"  # the longer of two that are equal but for white space
    assert result["e1"] == ("exact_duplicate", "e2", 1.0)
    assert result["e3"] == ("survivor", None, None)
    for name, (fate, survivor, similarity) in result.items():
        if fate == "near_duplicate":
            assert similarity == pytest.approx(jaccard(documents[name], documents[survivor]))


@pytest.mark.parametrize("verify", ["jaccard", "signature", "none"])
def test_the_same_fates_however_the_documents_are_divided(verify):
    documents, near = corpus(), MinHashConfig(verify=verify)
    expected = fates(memory(), divided(documents, 1), near)
    assert sum(row[0] == "survivor" for row in expected.values()) < 70
    with (
        patch.object(lsh_buckets, "ENTRIES", 20),
        patch.object(candidates, "MIN_BLOCK_DOCUMENTS", 15),
        patch.object(candidates, "PAIRS_AT_ONCE", 7),
        patch.object(candidates, "_MERGE_AT", 5),
        patch.object(verification, "SHINGLES_AT_ONCE", 500),
        patch.object(components, "DOCUMENTS_AT_ONCE", 3),
        patch.object(exchange, "FAN_OUT", 4),
    ):
        for files in (1, 3, 7):
            assert fates(memory(), divided(documents, files), near) == expected


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_every_engine_finds_the_same_fates(tmp_path, engine):
    parts = divided(corpus(), 4)
    assert fates(f"file://{tmp_path}/store", parts, engine=engine) == fates(memory(), parts)


@pytest.mark.parametrize("write", [1, 4, 5, 6, 7, 8, 9, 12, 13, 14, 16])
def test_a_run_killed_at_any_write_is_continued_to_the_same_fates(write):
    parts, url = divided(corpus(), 4), memory()
    original, countdown = PartitionWriter.write, iter(range(write, 0, -1))

    def killed(*arguments):
        if next(countdown, 0) == 1:
            raise KeyboardInterrupt
        original(*arguments)

    with patch.object(PartitionWriter, "write", killed), pytest.raises(KeyboardInterrupt):
        fates(url, parts)
    assert fates(url, parts) == fates(memory(), parts)


KILLED_RUN = """
import os, sys
from infra.workers.partitions import PartitionWriter
from tests.stages.dedup.near_duplicates.test_pipeline import corpus, divided, fates
original, left = PartitionWriter.write, int(sys.argv[2])
def write(*arguments):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
    original(*arguments)
PartitionWriter.write = write
if __name__ == "__main__":
    fates(sys.argv[1], divided(corpus(), 4))
"""


@pytest.mark.slow
@pytest.mark.parametrize("write", [3, 8, 11])
def test_a_process_killed_by_the_system_is_continued_to_the_same_fates(tmp_path, write):
    url, root = f"file://{tmp_path}/store", Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", KILLED_RUN, url, str(write)], cwd=root, capture_output=True)
    assert done.returncode == -9
    parts = divided(corpus(), 4)
    assert fates(url, parts, engine="processes") == fates(memory(), parts)


def test_other_thresholds_and_bands_share_the_signatures():
    url, parts = memory(), divided(corpus(), 2)
    fates(url, parts)
    with patch.object(signing, "sign", side_effect=AssertionError("signed again")):
        strict = fates(url, parts, MinHashConfig(similarity=0.95, bands=8, rows=8), key="c")
    assert strict == fates(memory(), parts, MinHashConfig(similarity=0.95, bands=8, rows=8))


def test_a_new_crawl_is_held_against_the_survivors_of_an_old_one():
    documents, old_url, new_url = corpus(), memory(), memory()
    old = {name: text for name, text in documents.items() if name.startswith("a") or name == "copy1"}
    first = fates(old_url, divided(old, 2), index=True)
    folder = f"{old_url}/dedup/{'b' * 64}/test-run"
    new = {f"new {name}": text + " and a little more" for name, text in documents.items() if name not in old}
    result = fates(new_url, divided(new, 3), against=[folder])
    alone = fates(memory(), divided(new, 3))
    kept = {name for name, row in first.items() if row[0] == "survivor"}
    dropped = {name: row for name, row in result.items() if row[1] in kept}
    close = {
        f"new near{number:02d}"
        for number in range(30)
        if jaccard(documents[f"a{number:02d}"], new[f"new near{number:02d}"]) > 0.88
    }
    assert close <= set(dropped)
    assert all(fate != "survivor" for fate, *_ in dropped.values())
    assert {name for name in result if name not in dropped and result[name][0] == "survivor"} == {
        name for name, row in alone.items() if row[0] == "survivor" and name not in dropped
    }
    assert fates(memory(), divided(new, 1), against=[folder]) == result


def test_an_index_with_other_settings_and_a_missing_index_are_errors():
    url = memory()
    fates(url, [corpus()], index=True)
    folder = f"{url}/dedup/{'b' * 64}/test-run"
    assert fingerprint(folder) == ArtifactStore(url).committed("dedup", "b" * 64)[0].manifest.digest
    with pytest.raises(
        ConfigError, match=f"{folder} was built with permutations 128, but this run has permutations 64"
    ):
        fates(memory(), [corpus()], MinHashConfig(permutations=64), against=[folder])
    with pytest.raises(NotFoundError, match="is not the folder of an artifact"):
        fingerprint(f"{url}/dedup/{'c' * 64}/test-run")
    with pytest.raises(NotFoundError, match="has no index"):
        fingerprint(f"{url}/ingest/{'a' * 64}/test-run")


def read(path: Path) -> dict[str, str]:
    with gzip.open(path, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    return {f"{path.name}/{number}": row["text"] for number, row in enumerate(rows)}


def similar_pairs(documents: Mapping[str, str], similarity: float) -> set[tuple[str, str]]:
    """All pairs of at least this Jaccard similarity, by the shingles that each two documents share."""
    sets, names = shingle_sets(pa.array(list(documents.values())), 5), list(documents)
    _, columns = np.unique(sets.flatten(), return_inverse=True)
    holds = sparse.csr_array((np.ones(len(columns), np.int32), columns, sets.offsets.to_numpy()))
    common = sparse.triu(holds @ holds.T, 1).tocoo()
    sizes = np.diff(sets.offsets)
    near = common.data >= similarity * (sizes[common.row] + sizes[common.col] - common.data)
    return {(names[first], names[second]) for first, second in zip(common.row[near], common.col[near], strict=True)}


@pytest.mark.parametrize(
    ("file", "folders"),
    [
        ("books", [
            ("Alice-s-Adventures-in-Wonderland_11/11-0", "Alice-s-Adventures-in-Wonderland_11/old-alice30"),
            ("Pride-and-Prejudice_1342/1342-0", "Pride-and-Prejudice_1342/old-pandp12"),
            ("The-Adventures-of-Sherlock-Holmes_1661/1661-8", "The-Adventures-of-Sherlock-Holmes_1661/old-advsh12"),
            ("The-Hound-of-the-Baskervilles_2852/2852-0", "The-Hound-of-the-Baskervilles_2852/old-bskrv11"),
            ("The-War-of-the-Worlds_36/36", "The-War-of-the-Worlds_36/36-0"),
            ("Treasure-Island_120/120-0", "Treasure-Island_120/old-treas10"),
        ]),
        ("technical", [("rust-book/nostarch", "rust-book/src")]),
    ],
)  # fmt: skip
def test_natural_duplicates_are_found(shared_data, file, folders):
    """Two editions of six books; the Rust book as source and as draft. All pairs are known, and all are joined."""
    with gzip.open(shared_data / "corpus" / f"{file}.jsonl.gz", "rt") as lines:
        documents = {row["id"]: row["text"] for row in map(json.loads, lines)}
    result = fates(memory(), divided(documents, 3))
    clusters = {name: survivor or name for name, (_, survivor, _) in result.items()}
    pairs = similar_pairs(documents, 0.8)
    missed = [pair for pair in pairs if clusters[pair[0]] != clusters[pair[1]]]
    assert len(missed) <= 0.01 * len(pairs)
    joined = {tuple(sorted((name.rpartition("/")[0], of.rpartition("/")[0]))) for name, of in clusters.items()}
    assert {tuple(f"{file}/{folder}" for folder in pair) for pair in folders} <= joined
    paired = {name for pair in pairs for name in pair}
    assert {name for name, (fate, *_) in result.items() if fate == "near_duplicate"} <= paired


def test_billions_of_documents_before_the_first_change_nothing():
    """An earlier limit was 3 billion documents, those of `dedup.against` included, which was to lift it."""
    url, parts, near = memory(), divided(corpus(), 2), MinHashConfig(verify="signature")
    documents = documents_artifact(url, parts)
    names = [path.removeprefix("documents/") for path in documents.paths("documents/*")]
    result = []
    for number, offset in enumerate((0, 1 << 33)):
        maps = PartitionMap(ArtifactStore(url).key_folder("dedup", str(number)), "dedup", CORPUS, "test-run")
        files = [replace(file, first=file.first + offset) for file in sign_documents(documents, names, near, maps)]
        context = StageContext("test-run", maps, maps.folder, SilentListener())
        with patch.object(lsh_buckets, "ENTRIES", 1 << 36):
            tables = fates_of_signed(documents, files, near, SurvivorConfig(), context)
        result.append([table.read().to_pylist() for table in tables])
    assert result[0] == result[1]
