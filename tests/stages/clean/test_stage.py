from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from data_schemas.errors import InputDataError
from data_schemas.tables import DOCUMENTS, FUNNEL
from infra.progress import SilentListener
from infra.store.artifacts import Artifact, ArtifactStore
from infra.workers.partitions import PartitionMap
from stages.clean.config import CleanConfig
from stages.clean.stage import CleanStage
from stages.stage import StageContext
from tests.stages.clean.rules.test_document_rules import GOOD
from tests.stores import commit, no_rejects

FOOTER = "All rights reserved by the owners of this site."
Rows = Sequence[dict[str, Any]]


def row(name: str, text: str, **columns: Any) -> dict[str, Any]:
    return {"id": name, "text": text, "source": "tests", "path": f"{name}.txt", "genre": "web", **columns}


def site(host: str, pages: int, footers: int) -> list[dict[str, Any]]:
    """Pages of one site, the first of them with the footer."""
    text = "\n".join(f"{line} ({{page}})" for line in GOOD.split("\n") if line)
    return [
        row(
            f"{host}/{page}",
            text.format(page=page) + (f"\n\n{FOOTER}" if page < footers else ""),
            url=f"https://{host}/{page}",
        )
        for page in range(pages)
    ]


CORPUS = [
    *site("many.example", 10, 8),
    *site("few.example", 10, 2),
    *site("none.example", 3, 3),
    row("short", "Too short."),
    row("curly", f"{GOOD} {{x}}"),
    row("book", f"{GOOD}\nSIGN IN", genre="books"),
    row("personal", f"{GOOD}\nWrite to ann.miller@millstones.org about it."),
    row("mojibake", f"It was schÃ¶n.\r\n\r\n{GOOD}"),
    row("tagged", GOOD, tags=["earlier"], edits=[("cookies", 1)], quality=0.25, language="de"),
]


def documents(url: str, files: Sequence[Rows]) -> Artifact:
    store = ArtifactStore(url)
    out = store.writer("ingest", "a" * 64, f"files-{len(files)}", RAW_DOCUMENTS)
    for number, rows in enumerate(files):
        out.write_table(f"documents/{number:05d}.parquet", pa.Table.from_pylist(list(rows), DOCUMENTS))
        out.write_table(f"rejects/{number:05d}.parquet", no_rejects())
        out.write_table(f"funnel/{number:05d}.parquet", FUNNEL.empty_table())
    return commit(store, out, "ingest", "a" * 64, RAW_DOCUMENTS)


def clean(tmp_path, files: Sequence[Rows], engine: str = "inline", **config: Any) -> Artifact:
    url = f"file://{tmp_path}/{engine}-{len(files)}"
    ingested = documents(url, files)
    store = ArtifactStore(url)
    out = store.writer("clean", "b" * 64, "run", RAW_DOCUMENTS)
    partitions = PartitionMap(out.folder, "clean", RAW_DOCUMENTS, "run", engine, workers=2)  # type: ignore[arg-type]
    context = StageContext("run", partitions, out.folder.child("work"), SilentListener())
    CleanStage().run(CleanConfig.model_validate(config), {"documents": ingested}, out, context)
    return commit(store, out, "clean", "b" * 64, RAW_DOCUMENTS)


def rows_of(artifact: Artifact, folder: str) -> list[dict[str, Any]]:
    rows = [row for path in artifact.paths(f"{folder}/*.parquet") for row in artifact.read_table(path).to_pylist()]
    return sorted(rows, key=lambda row: row.get("id", ""))


EVERYTHING = {
    "boilerplate": {"min_documents": 3, "min_share": 0.5},
    "lines": {"refinedweb_navigation": {"action": "drop"}},
    "by_genre": {"books": {"lines": {"refinedweb_navigation": {"action": "off"}}}},
}


def test_what_is_kept_changed_tagged_and_dropped(tmp_path):
    artifact = clean(tmp_path, [CORPUS[:7], CORPUS[7:]], **EVERYTHING)
    kept = {one["id"]: one for one in rows_of(artifact, "documents")}
    (reject,) = rows_of(artifact, "rejects")
    assert (reject["id"], reject["reason"], reject["score"], reject["bytes"]) == ("short", "gopher_words", 2, 10)
    assert kept["mojibake"]["text"].startswith("It was schön.\n\nThe mill")
    assert kept["curly"]["tags"] == ["c4_curly_bracket"]
    assert FOOTER not in kept["many.example/0"]["text"]
    assert kept["many.example/0"]["edits"] == [("boilerplate_lines", 1)]
    assert kept["few.example/0"]["text"].endswith(FOOTER)
    assert not any(one["text"].endswith(FOOTER) for name, one in kept.items() if name.startswith("none.example"))
    assert "SIGN IN" in kept["book"]["text"]
    assert kept["personal"]["text"].endswith("Write to <EMAIL> about it.")
    assert kept["personal"]["edits"] == [("redacted_email", 1)]
    assert kept["tagged"]["tags"] == ["earlier"]
    assert kept["tagged"]["edits"] == [("cookies", 1)]
    assert (kept["tagged"]["quality"], kept["tagged"]["language"]) == (0.25, "de")
    assert kept["curly"]["language"] == "en"
    counts = artifact.manifest.counts
    assert counts["documents_in"] == len(CORPUS)
    assert counts["documents_out"] == len(CORPUS) - 1
    assert counts["dropped.gopher_words"] == 1
    assert counts["tagged.c4_curly_bracket"] == 1
    assert counts["edits.boilerplate_lines"] == 11
    funnel = rows_of(artifact, "funnel")
    assert sum(one["documents"] for one in funnel) == len(CORPUS)
    assert {one["fate"] for one in funnel} == {"kept", "gopher_words"}


@pytest.mark.parametrize("engine", ["inline", pytest.param("processes", marks=pytest.mark.slow)])
def test_the_same_bytes_of_every_document_however_the_files_are_cut(tmp_path, engine):
    one = clean(tmp_path / "one", [CORPUS], **EVERYTHING)
    many = clean(tmp_path / "many", [CORPUS[start::5] for start in range(5)], engine, **EVERYTHING)
    for folder in ("documents", "rejects"):
        assert rows_of(one, folder) == rows_of(many, folder)
    assert one.manifest.counts == many.manifest.counts


def test_a_resumed_attempt_gives_the_same_artifact(tmp_path, monkeypatch):
    files = [CORPUS[start::3] for start in range(3)]
    whole = clean(tmp_path / "whole", files, **EVERYTHING)
    done = 0
    run = PartitionMap._run

    def killed(self, task, waiting):
        nonlocal done
        for result in run(self, task, waiting):
            done += 1
            if done in (2, 7):
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(PartitionMap, "_run", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            clean(tmp_path / "killed", files, **EVERYTHING)
    assert clean(tmp_path / "killed", files, **EVERYTHING).manifest.digest == whole.manifest.digest


GERMAN = """Die Mühle steht, wo der Fluss sich wendet, und seit zweihundert Jahren gibt ihr Rad dem Tal sein Mehl.
Als im letzten Winter der Frost früh kam, öffnete die Tochter des Müllers das Wehr mit der Hand, was niemand getan
hatte, seit ihr Großvater gestorben war. Sie sagt, dass das Wasser den Weg kannte und ihn jedes Jahr wieder findet."""


def test_only_accepted_languages_stay(tmp_path):
    off = {name: {"action": "off"} for name in ("gopher_stop_words", "stop_word_share")}
    rules = {**off, "language": {"action": "drop"}}
    artifact = clean(tmp_path, [[row("de", GERMAN), row("en", GOOD)]], rules=rules, languages=["en", "fr"])
    assert [one["id"] for one in rows_of(artifact, "documents")] == ["en"]
    assert [(one["reason"], one["score"]) for one in rows_of(artifact, "rejects")] == [("language", 0)]
    both = clean(tmp_path / "all", [[row("de", GERMAN), row("en", GOOD)]], rules=rules)
    assert {one["id"]: one["language"] for one in rows_of(both, "documents")} == {"de": "de", "en": "en"}


def test_bad_words_tag_and_can_drop(tmp_path):
    rude = row("rude", f"{GOOD}\nWhat a shit mill it is.")
    (kept,) = rows_of(clean(tmp_path, [[rude]]), "documents")
    assert kept["tags"] == ["badwords"]
    artifact = clean(tmp_path / "drop", [[rude, row("polite", GOOD)]], rules={"badwords": {"action": "drop"}})
    (reject,) = rows_of(artifact, "rejects")
    assert reject["reason"] == "badwords"
    assert reject["score"] == pytest.approx(1 / len(f"{GOOD} What a shit mill it is".replace("'", " ").split()))


def test_personal_data_can_stay(tmp_path):
    text = f"{GOOD}\nWrite to ann.miller@millstones.org about it."
    (kept,) = rows_of(clean(tmp_path, [[row("personal", text)]], personal_data=None), "documents")
    assert (kept["text"], kept["edits"]) == (text, None)


def test_a_corpus_of_which_nothing_is_left_is_an_error(tmp_path):
    with pytest.raises(InputDataError, match=r"dropped the only document \(dropped.gopher_words\).*clean.rules"):
        clean(tmp_path, [[row("short", "Too short.")]])
