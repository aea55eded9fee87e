"""`headrace profile` on a small run written by hand, with the real stage."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.commands.profile.corpora import ATTEMPT
from flows.config.run_config import build_run_config
from flows.planning.planner import Planner
from flows.runs.artifacts import PROFILE_PAGE
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore
from stages.profile.stage import ProfileStage
from tests.flows.commands.profile.small_run import RUN, clean, dedup, document, write_run
from tests.flows.mini import mini_values
from tests.flows.report.page import Page
from tests.flows.report.profile.tables import profile_artifact, small_corpus

SETTINGS = {"word_types": 2_048, "ngram_types": 2_048, "coverage": None}


@pytest.fixture
def store(tmp_path) -> str:
    """A store with a run whose config has a section `profile`, but which stopped before that stage."""
    documents = [document(number) for number in range(60)]
    before = clean(str(tmp_path), documents)
    after = dedup(str(tmp_path), before, documents, [row["id"] for row in documents if row["genre"] == "books"])
    write_run(str(tmp_path), before, after, profile=SETTINGS)
    return str(tmp_path)


def run(store: str, *arguments: str):
    return CliRunner().invoke(app, ["profile", *arguments, "--store", store])


def printed(store: str, *arguments: str):
    result = run(store, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output.splitlines()[-1])


def test_a_corpus_is_profiled_once_with_the_run_s_settings(store):
    first = printed(store, f"{RUN}:clean")
    assert first["slices"]["genre=news"] == 20
    assert {row["measure"]: row["value"] for row in first["figures"]}["documents"] == 60
    [profile] = ArtifactStore(store).all("profile")
    assert profile.manifest.config | SETTINGS == profile.manifest.config
    assert profile.manifest.inputs["corpus"].stage == "clean"
    assert printed(store, f"{RUN}:clean") == first
    assert run(store, f"profile/{profile.ref.key[:12]}").exit_code == 0
    assert len(ArtifactStore(store).all("profile")) == 1
    page = Page(Path(first["page"]).read_text(encoding="utf-8"))
    page.assert_self_contained()
    assert "genre=<script>alert(1)</script>" in page.text


def test_a_run_reuses_what_the_command_computed_and_the_command_what_a_run_made(store, monkeypatch):
    monkeypatch.setattr(ProfileStage, "sources", lambda self, config: {"wordnet": "0123"})
    assert run(store, f"{RUN}:dedup").exit_code == 0
    values = {**mini_values("nothing"), "profile": SETTINGS}
    planner = Planner(ArtifactStore(store), RunStore(store), build_run_config(values, "mini"), None, None)
    corpus = ArtifactStore(store).open(RunStore(store).get(RUN).stages["dedup"].artifact)
    decision = planner.decide(ProfileStage(), {"dedup": corpus}, corpus.manifest.volume)
    assert (decision.action, decision.artifact and decision.artifact.ref.attempt) == ("reuse", ATTEMPT)
    assert decision.artifact is not None and decision.artifact.manifest.sources == {"wordnet": "0123"}


def test_what_dedup_took_out(store, tmp_path):
    difference = printed(store, f"{RUN}:clean", "--against", f"{RUN}:dedup", "--html", f"{tmp_path}/d.html")
    largest = difference["changes"][0]
    assert (largest["group"], largest["item"]) == ("genre", "books")
    assert largest["change"] == pytest.approx(1 / 3) and largest["excludes_zero"]
    taken = difference["only_in_first"]
    assert (taken["missing"], taken["documents"]) == (20, 60)
    assert taken["by"]["reason"] == {"dedup: near duplicate": {"missing": 20, "documents": 20}}
    assert difference["only_in_second"]["missing"] == 0
    page = Page(Path(difference["page"]).read_text(encoding="utf-8"))
    page.assert_self_contained()
    assert "<script" not in page.html
    assert re.search(r"</pre><script>alert\(\d+\)</script> Plain words", page.text), "an example, as it is"
    assert page.text.index("genre: books") < page.text.index("Only in clean of")


def test_the_terminal_is_safe_from_what_documents_say(store):
    result = run(store, f"{RUN}:clean", "--against", f"{RUN}:dedup")
    assert result.exit_code == 0 and "\x1b" not in result.output
    assert "[31mred" in result.output, "shown without the escape"


def test_what_did_not_move_is_no_mover(store):
    result = run(store, f"{RUN}:clean", "--against", f"{RUN}:clean")
    assert result.exit_code == 0 and "without any change: " in result.output
    assert "+0.0" not in result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([RUN], f"run {RUN} has no profile; profile a corpus of it with: headrace profile {RUN}:dedup"),
        ([f"{RUN}:tokenize"], f"run {RUN} has no 'tokenize'; it has: clean, dedup"),
        ([f"{RUN}:clean", "--slice", "genre=news"], "--slice selects what --against compares"),
        ([f"{RUN}:clean", "--against", f"{RUN}:dedup", "--slice", "genre=nws"], "no slice 'genre=nws' in either"),
        (["no-such-run"], "no run"),
        (["clean/eeee"], "no artifact 'clean/eeee'"),
    ],
)
def test_what_cannot_be_profiled_is_one_sentence(store, arguments, says):
    result = run(store, *arguments)
    assert result.exit_code == 2, result.output
    assert says in result.stderr and result.stderr.count("\n") == 1


def test_profiles_of_other_settings_or_versions_are_not_compared(store):
    older = profile_artifact(store, small_corpus(), config={**SETTINGS, "word_types": 4_096, "slices": {"genre": 3}})
    result = run(store, older.ref.label, "--against", f"{RUN}:dedup")
    assert result.exit_code == 0, "the corpus is profiled with the settings of the profile"
    newer = [artifact for artifact in ArtifactStore(store).all("profile") if artifact.ref != older.ref]
    assert newer[0].manifest.config["slices"]["genre"] == 3
    run(store, f"{RUN}:clean")
    other = next(row for row in ArtifactStore(store).all("profile") if row.manifest.config["word_types"] == 2_048)
    result = run(store, older.ref.label, "--against", other.ref.label)
    assert result.exit_code == 2
    assert "not comparable: " in result.stderr and "word_types: 4096 -> 2048" in result.stderr
    strange = profile_artifact(store, small_corpus(), attempt="b-run", config={"shades": 3})
    result = run(store, strange.ref.label, "--against", f"{RUN}:dedup")
    assert result.exit_code == 2 and "settings of this profile are those of another version: shades" in result.stderr


def test_the_page_of_a_run_s_own_profile_is_beside_its_report(store):
    profile = profile_artifact(store, small_corpus())
    record = RunStore(store).get(RUN)
    outcome = record.stages["dedup"].model_copy(update={"artifact": profile.ref})
    RunStore(store).save(record.model_copy(update={"stages": {**record.stages, "profile": outcome}}))
    shown = printed(store, RUN)
    assert shown["page"] == f"{store}/reports/{RUN}/{PROFILE_PAGE}"
    reason = "the list is not installed: pip install 'headrace[toxicity]'"
    assert shown["left_out"]["toxicity"] == reason
    assert f"not in this profile: toxicity ({reason})" in run(store, RUN).stdout
    assert shown["figures"][0] == {
        "slice": "all", "measure": "documents", "item": None, "value": 1000.0, "low": None, "high": None,
        "unit": "documents", "exact": True,
    }  # fmt: skip
