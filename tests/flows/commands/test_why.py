"""`headrace why`: the fate of documents that were kept, dropped by each stage, and never read."""

import json

import pytest

from data_schemas.errors import NotFoundError
from flows.commands.why import as_json, fates, text_of
from tests.flows.mini import mini_config, run_config, write_corpus
from tests.stages.clean.rules.test_document_rules import GOOD


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(store, record) of a run up to tokenize over good, short, doubled and broken records."""
    folder = tmp_path_factory.mktemp("why")
    path = write_corpus(folder / "texts")
    with (folder / "texts" / "odd.jsonl").open("w") as file:
        for text in (GOOD, "too short", GOOD.replace("mill", "MILL")):
            file.write(json.dumps({"text": text}) + "\n")
        file.write("{broken\n")
    config = mini_config(path.replace("*.jsonl.gz", "*"), "ingest.max_reject_share=0.5")
    session, _ = run_config(f"{folder}/store", config, last_stage="tokenize")
    return f"{folder}/store", session.record


def decisions(finished, document: str) -> list[tuple[str, bool]]:
    return [(fate.stage, fate.kept) for fate in fates(*finished, document)]


def test_a_kept_document_is_followed_to_its_tokens(finished):
    steps = fates(*finished, "files/part-0.jsonl.gz#1")
    assert [(fate.stage, fate.kept) for fate in steps] == [
        ("ingest", True), ("clean", True), ("dedup", True), ("tokenize", True),
    ]  # fmt: skip
    assert "tokens, in train/" in steps[-1].sentence or "tokens, in held_out/" in steps[-1].sentence
    assert len(text_of(steps)) > 100
    json.dumps(as_json("files/part-0.jsonl.gz#1", finished[1], steps))


def test_a_short_document_names_the_rule_the_measure_and_the_threshold(finished):
    steps = fates(*finished, "files/odd.jsonl#1")
    assert [(fate.stage, fate.kept) for fate in steps] == [("ingest", True), ("clean", False)]
    assert "2 (accepted: from 50 up to 100000)" in steps[-1].sentence
    assert text_of(steps) == "too short"


def test_a_duplicate_names_the_document_that_stayed(finished):
    rejected = [
        name for name in ("files/odd.jsonl#0", "files/odd.jsonl#2") if decisions(finished, name)[-1][0] == "dedup"
    ]
    assert len(rejected) == 1
    [other] = {"files/odd.jsonl#0", "files/odd.jsonl#2"} - set(rejected)
    assert other in fates(*finished, rejected[0])[-1].sentence


def test_a_broken_record_says_where_it_stood(finished):
    [fate] = fates(*finished, "files/odd.jsonl#3")
    assert (fate.stage, fate.kept) == ("ingest", False)
    assert "record 3 of odd.jsonl" in fate.sentence
    with pytest.raises(NotFoundError, match="never read"):
        text_of([fate])


def test_an_unknown_id_gets_ids_that_contain_it(finished):
    for wrong, part in {"odd.jsonl": "odd.jsonl", "./texts/odd.jsonl#0": "odd.jsonl#0"}.items():
        with pytest.raises(NotFoundError, match=rf"ids that contain '{part}': files/odd\.jsonl#0"):
            fates(*finished, wrong)
    with pytest.raises(NotFoundError, match=r"ids are SOURCE/PATH#POSITION, such as files/\S+#\d+$"):
        fates(*finished, "nothing like it")
