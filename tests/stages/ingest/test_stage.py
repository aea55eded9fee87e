"""The stage: ids, what describes a document, bounded files, the limit of rejects, the plan."""

import json
import uuid

import fsspec
import pyarrow.parquet as pq
import pytest

from data_schemas.errors import ConfigError, InputDataError
from data_schemas.tables import FUNNEL
from infra.progress import SilentListener
from infra.store.artifacts import ArtifactStore
from infra.workers.capacity import Capacity
from infra.workers.partitions import PartitionMap
from stages.ingest import stage as ingest_stage
from stages.ingest.config import IngestConfig
from stages.ingest.stage import IngestStage
from stages.stage import StageContext
from tests.stages.ingest.sample_files import json_lines


def ingest(config, store=None, engine="inline", attempt="a", listing=None, fresh=False):
    stage = IngestStage()
    writer = ArtifactStore(store or f"memory://{uuid.uuid4().hex}").writer("ingest", "key", attempt, stage.output)
    partitions = PartitionMap(writer.folder, "ingest", stage.output, attempt, engine, 2, fresh)
    context = StageContext("run", partitions, writer.folder.child("work"), SilentListener(), listing=listing)
    stage.run(config, {}, writer, context)
    return writer


def rows(writer, folder):
    table_rows = []
    for path in sorted(writer.files):
        if path.startswith(f"{folder}/"):
            with writer.folder.open(writer.files[path].part) as file:
                table_rows += pq.read_table(file).to_pylist()
    return table_rows


def ids(writer, folder="documents"):
    return [row["id"] for row in rows(writer, folder)]


def write(path, *values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json_lines(*values))
    return str(path)


def test_the_one_line_config_and_the_list_say_the_same(tmp_path):
    path = write(tmp_path / "a.jsonl", {"body": "one", "url": "u"}, {"body": "two", "license": "MIT", "id": 3})
    flat = IngestConfig(path=path, text_field="body", genre="g", licence="CC0")
    entry = {"path": path, "fields": {"text": "body"}, "genre": "g", "licence": "CC0"}
    listed = IngestConfig(sources=[entry])
    assert flat.all_sources() == listed.all_sources()
    assert IngestConfig(**listed.model_dump(mode="json")) == listed, "a config that was written down can be read"
    table_rows = rows(ingest(flat), "documents")
    assert table_rows == rows(ingest(listed), "documents")
    assert [(row["id"], row["licence"], row["url"]) for row in table_rows] == [
        ("files/a.jsonl#0", "CC0", "u"), ("files/a.jsonl#1", "MIT", None),
    ]  # fmt: skip
    assert table_rows[1]["metadata"] == [("id", "3")]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sources": [{"path": "x"}], "genre": "books"}, "genre and sources are both set"),
        ({"sources": [{"path": "x"}], "text_field": "body"}, "text_field and sources are both set"),
        ({"sources": [{"path": "x"}], "max_source_bytes": 9}, "remove it with max_source_bytes: null"),
        ({"text_field": "a", "fields": {"text": "b"}}, "are both set"),
        ({"sources": [{}]}, "path"),
        ({"sources": [{"path": "x", "format": "pdf"}]}, "format"),
    ],
)
def test_two_ways_to_say_one_thing_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        IngestConfig(**values)


def test_what_a_record_says_wins_over_the_constant_and_never_changes_its_id(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "x", "s": "BBC", "g": "news", "l": "de"}, {"text": "y"}, {"text": " "})
    fields = {"source": "s", "genre": "g", "language": "l"}
    writer = ingest(IngestConfig(path=path, source="mine", genre="web", language="en", fields=fields))
    assert [(row["id"], row["source"], row["genre"], row["language"]) for row in rows(writer, "documents")] == [
        ("mine/a.jsonl#0", "BBC", "news", "de"), ("mine/a.jsonl#1", "mine", "web", "en"),
    ]  # fmt: skip
    [reject] = rows(writer, "rejects")
    assert (reject["id"], reject["reason"], reject["position"]) == ("mine/a.jsonl#2", "empty_text", 2)
    assert writer.counts["broken_records"] == 0


def test_sources_of_one_name_and_path_are_refused_and_other_names_mend_it(tmp_path):
    first, second = (write(tmp_path / name / "x.jsonl", {"text": name}) for name in ("one", "two"))
    with pytest.raises(
        ConfigError, match=r"2 files would have documents with the same ids, files/x\.jsonl#.*a distinct `source`"
    ):
        ingest(IngestConfig(sources=[{"path": first}, {"path": second}]))
    writer = ingest(IngestConfig(sources=[{"path": first}, {"path": second, "source": "second"}]))
    assert ids(writer) == ["files/x.jsonl#0", "second/x.jsonl#0"]


def test_ids_and_texts_do_not_depend_on_partitions_or_engine(tmp_path):
    for number in range(4):
        write(tmp_path / "in" / f"{number}.jsonl", *({"text": f"{number} {row} " * 50} for row in range(30)))
    path = f"{tmp_path}/in/*"
    whole = rows(ingest(IngestConfig(path=path)), "documents")
    small = ingest(IngestConfig(path=path, partition_bytes=2_000), f"file://{tmp_path}/store", "processes")
    assert rows(small, "documents") == whole
    assert len(ids(small)) == 120


def test_a_large_file_is_written_in_several_bounded_ones(tmp_path):
    path = write(tmp_path / "a.jsonl", *({"text": "x" * 300} for _ in range(100)), *([3] * 50))
    writer = ingest(IngestConfig(path=path, partition_bytes=10_000, max_reject_share=1))
    names = sorted(name for name in writer.files if name.startswith("documents/"))
    assert names == ["documents/00000.parquet", *(f"documents/00000_{number:06d}.parquet" for number in range(1, 5))]
    assert ids(writer) == [f"files/a.jsonl#{number}" for number in range(100)]
    assert ids(writer, "rejects") == [f"files/a.jsonl#{number}" for number in range(100, 150)]
    assert writer.counts["documents_in"] == 150
    funnel = [(row["fate"], row["documents"]) for row in rows(writer, "funnel")]
    assert funnel == [*[("kept", 20)] * 5, ("not_an_object", 50)]
    assert set(rows(writer, "funnel")[0]) == set(FUNNEL.names)


@pytest.mark.parametrize(("broken", "stops"), [(10, False), (11, True)])
def test_the_share_of_broken_records_decides_at_the_end(tmp_path, broken, stops):
    path = write(tmp_path / "a.jsonl", *({"text": "fine"} for _ in range(100 - broken)), *([3] * broken))
    config = IngestConfig(path=path)
    if not stops:
        assert ingest(config).counts["broken_records"] == broken
        return
    with pytest.raises(InputDataError) as raised:
        ingest(config)
    assert str(raised.value).startswith(
        "11 of 100 records read so far are broken, more than ingest.max_reject_share (0.1) of all records: "
        "11 not_an_object, first a.jsonl, record 89 (a number, not an object)."
    )
    assert "--set ingest.max_reject_share=0.17" in str(raised.value)
    ingest(IngestConfig(path=path, max_reject_share=0.17))


def test_few_records_never_stop_a_run_and_the_limit_is_no_part_of_the_key(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "fine"}, 3, 3)
    assert ingest(IngestConfig(path=path)).counts["broken_records"] == 2
    assert IngestConfig(max_reject_share=0.5).key_fields() == IngestConfig().key_fields()


def test_a_corpus_that_is_all_broken_stops_long_before_its_end_in_one_file_and_in_many(tmp_path, monkeypatch):
    first = tmp_path / "one.jsonl"
    with first.open("wb") as file:
        for _ in range(30):
            file.write(b'{"body": "' + b"x" * 989 + b'"}\n')
            file.write((b'{"body": "' + b"x" * 989 + b'"}\n') * 999)
    with pytest.raises(InputDataError) as raised:
        ingest(IngestConfig(path=str(first)))
    assert int(str(raised.value).split()[0].replace(",", "")) < 6_000
    assert "field 'text' is missing; the record has: body" in str(raised.value)
    for number in range(40):
        write(tmp_path / "many" / f"{number:02d}.jsonl", *({"body": "x"} for _ in range(50)))
    monkeypatch.setattr(ingest_stage, "MIN_PARTITIONS_PER_CHECK", 2)
    with pytest.raises(InputDataError, match=r"^\S+ of \S+ records read") as raised:
        ingest(IngestConfig(path=f"{tmp_path}/many/*", partition_bytes=100))
    assert int(str(raised.value).split()[0].replace(",", "")) < 600


def test_one_rotten_file_among_many_does_not_stop_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest_stage, "MIN_PARTITIONS_PER_CHECK", 2)
    for number in range(20):
        write(tmp_path / f"{number:02d}.jsonl", *([{"text": "x"}] * 200 if number else [{"tixt": "x"}] * 200))
    assert ingest(IngestConfig(path=f"{tmp_path}/*", partition_bytes=100)).counts["broken_records"] == 200


def test_nothing_read_says_why(tmp_path):
    path = write(tmp_path / "a.jsonl", {"body": "x"})
    with pytest.raises(
        InputDataError, match=r"no document was read .*no_text.*record 0 of a\.jsonl.*ingest\.fields\.text"
    ):
        ingest(IngestConfig(path=path))
    with pytest.raises(InputDataError, match=r"no document was read .*empty_text.*check ingest.path"):
        ingest(IngestConfig(path=write(tmp_path / "b.jsonl", {"text": ""})))
    (tmp_path / "c.jsonl").touch()
    with pytest.raises(InputDataError, match=r"no document was read .*no_record.*check ingest.path"):
        ingest(IngestConfig(path=f"{tmp_path}/c.jsonl"))


def test_odd_text_beside_the_text_cannot_stop_a_run():
    fsspec.filesystem("memory").pipe("/odd-of-headrace/a.jsonl", b"\n".join((
        b'{"text": "\\ud800"}', b'{"text": "good", "url": "\\ud800", "id": "\\u0000", "license": {"a": 1}}',
    )))  # fmt: skip
    writer = ingest(IngestConfig(path="memory://odd-of-headrace/*", fields={"genre": "url"}))
    [document] = rows(writer, "documents")
    assert (document["url"], document["genre"], document["licence"]) == ("?", "?", '{"a": 1}')
    assert [row["reason"] for row in rows(writer, "rejects")] == ["not_unicode"]


def test_the_plan_lists_every_source_and_reads_none(tmp_path):
    first = write(tmp_path / "one.jsonl", *({"text": "x" * 1000} for _ in range(100)))
    second = write(tmp_path / "two.jsonl", {"text": "x" * 50_000})
    config = IngestConfig(sources=[{"path": first}, {"path": second, "source": "two"}])
    listed = IngestStage().list_sources(config, "")
    assert list(listed.fingerprints) == [first, second]
    volume = IngestStage().estimate(config, listed.volume, Capacity()).output
    assert volume.text_bytes == pytest.approx(150_000, rel=0.1)
    before = listed.fingerprints
    write(tmp_path / "two.jsonl", {"text": "changed"})
    after = IngestStage().list_sources(config, "").fingerprints
    assert (before[first], before[second] == after[second]) == (after[first], False)
    assert json.dumps(after)


@pytest.mark.parametrize(("settings", "share"), [({}, 1), ({"language": "en"}, 0), ({"language": "th"}, 1)])
def test_the_plan_knows_scripts_without_spaces_from_a_few_records_or_the_language(tmp_path, settings, share):
    path = write(tmp_path / "zh.jsonl", *({"text": "汉字" * 200} for _ in range(50)))
    volume = IngestStage().list_sources(IngestConfig(path=path, **settings), "").volume
    assert volume.unspaced_bytes == pytest.approx(share * volume.text_bytes, rel=0.01)
    assert ingest(IngestConfig(path=path)).volume.unspaced_bytes == 50 * 1200


def test_a_cap_of_bytes_is_each_sources_own(tmp_path):
    for folder in ("a", "b"):
        for number in range(5):
            write(tmp_path / folder / f"{folder}{number}.jsonl", {"text": "x" * 100})
    config = IngestConfig(sources=[{"path": f"{tmp_path}/a/*", "max_source_bytes": 250}, {"path": f"{tmp_path}/b/*"}])
    assert [sum(name.startswith(f"files/{folder}") for name in ids(ingest(config))) for folder in "ab"] == [2, 5]


def test_python_documentation_beside_files(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "x"})
    python = {"path": "python://documentation", "max_source_bytes": 400_000}
    writer = ingest(IngestConfig(sources=[python, {"path": path}]))
    table_rows = rows(writer, "documents")
    assert table_rows[-1]["id"] == "files/a.jsonl#0"
    assert {"version"} <= {key for row in table_rows[:-1] for key, _ in row["metadata"]}
    assert len(set(ids(writer))) == len(table_rows) > 1


def test_a_file_without_a_record_is_a_reject_and_not_broken(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "x", "kind": "a"})
    for name, data in (("b.jsonl", b"\n"), ("c.csv", b"id,text\n"), ("d.json", b"[]"), ("e.jsonl", b"")):
        (tmp_path / name).write_bytes(data)
    writer = ingest(IngestConfig(path=f"{tmp_path}/*"))
    assert [(row["path"], row["reason"]) for row in rows(writer, "rejects")] == [
        (name, "no_record") for name in ("b.jsonl", "c.csv", "d.json", "e.jsonl")
    ]
    assert writer.counts["broken_records"] == 0
    assert not rows(ingest(IngestConfig(path=f"{tmp_path}/*", where={"kind": "a"})), "rejects")
    assert ids(ingest(IngestConfig(path=path))) == ["files/a.jsonl#0"]


def test_genres_that_nobody_named(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "one"}, {"text": "two", "kind": "letter"}, {"other": 1})
    writer = ingest(IngestConfig(path=path, fields={"genre": "kind"}, max_reject_share=1))
    assert [row["genre"] for row in rows(writer, "documents")] == ["unknown", "letter"]
    assert [row["genre"] for row in rows(writer, "rejects")] == ["unknown"]
    with pytest.raises(InputDataError, match="no document was read from python://documentation"):
        ingest(IngestConfig(max_source_bytes=1))
    [first, *_] = rows(ingest(IngestConfig(max_source_bytes=60_000)), "documents")
    assert first["genre"] == "technical documentation"


def test_records_that_are_passed_over_are_counted(tmp_path):
    path = write(tmp_path / "a.jsonl", *({"text": "x", "kind": kind} for kind in "abb"))
    writer = ingest(IngestConfig(sources=[{"path": path, "where": {"kind": "a"}}]))
    assert writer.counts["passed_over.records_without_the_values_of_where"] == 2
    assert writer.counts["documents_out"] == 1
