"""The stage over small corpora: shares, gates, failures, resuming, and bytes that depend on nothing else."""

import json
from collections import Counter

import pytest

from data_schemas.errors import ConfigError, EnvironmentProblem
from data_schemas.manifest import Volume
from infra.rates.rates import Rates, learned_rates
from infra.store.filesystem import Folder
from infra.workers.capacity import Capacity
from stages.clean.config import CleanConfig
from stages.clean.verdict import rules_of
from stages.synthesize import generation, methods
from stages.synthesize.config import SynthesizeConfig
from stages.synthesize.generation import Work
from stages.synthesize.method import Failure
from stages.synthesize.stage import TEXT_BYTES_PER_SECOND, SynthesizeStage
from tests.infra.rates.test_rates import costs as measured_costs
from tests.stages.clean.rules.test_document_rules import GOOD
from tests.stages.synthesize.fakes import (
    FakeMethod,
    config_of,
    corpus_of,
    document,
    prose,
    rows,
    run_stage,
    synthetic,
    use,
    verdicts,
)  # fmt: skip

NEWS = [document(f"news-{number}", prose(number)) for number in range(20)]
PLAIN = [
    document(f"plain-{number}", "the old mill of the village stood by the river " * 3 + str(number))
    for number in range(20)
]
HELD_OUT = [document(f"held-{number}", prose(100 + number)) for number in range(4)]


def reworded(text: str, seed: int) -> str:
    return text.replace("mil", f"dam{seed % 97}")


@pytest.fixture
def method(monkeypatch):
    return use(monkeypatch, FakeMethod(reworded))


def test_every_record_names_parent_method_engine_seed_and_gates_and_becomes_a_document(method):
    wiki = [document(f"wiki-{number}", prose(40 + number), genre="wiki", licence="CC0") for number in range(9)]
    corpus = corpus_of([*NEWS, *wiki], HELD_OUT)
    made = run_stage(corpus, config_of(share=0.25, gates={"min_overlap": 0.1, "near": {}}))
    records, train = rows(made, "synthetic"), rows(made, "train")
    assert Counter(row["genre"] for row in records.values()) == {"news": 5, "wiki": 2}, "shares by genre"
    name, record = next((name, row) for name, row in records.items() if row["genre"] == "wiki")
    assert record["parent"] == name.removesuffix("~swap") and record["verdict"] == "kept" and record["text"] is None
    assert json.loads(record["parameters"]) == {"alpha": 0.1} and record["engine"] == "fake"
    assert [gate["gate"] for gate in record["gates"]] == ["too_far_from_parent", "duplicate"]
    child, parent = train[name], train[record["parent"]]
    assert child["text"] == reworded(parent["text"], record["seed"]) and child["source"] == "synthetic/swap"
    assert dict(child["metadata"])["parent"] == parent["id"] and child["licence"] == "CC0"
    assert made.manifest.counts["train_documents"] == 29 + 7 == len(train) == made.manifest.volume.documents
    for path in [*corpus.paths("train/*"), *corpus.paths("held_out/*")]:
        assert made.read(path) == corpus.read(path), "the split and its bytes stay"
    assert rows(made, "held_out").keys() == {row["id"] for row in HELD_OUT}


def test_bytes_depend_on_config_and_documents_alone(method):
    files, one_file = corpus_of(NEWS, HELD_OUT, files=3), corpus_of(NEWS, HELD_OUT, files=1)
    config = config_of(share=0.5, gates={"near": {}})
    first = run_stage(files, config)
    assert rows(first, "synthetic") == rows(run_stage(one_file, config), "synthetic")
    small = run_stage(files, config.model_copy(update={"batch_documents": 1}), "other", key="e" * 64)
    assert {path: first.read(path) for path in first.paths("*")} == {
        path: small.read(path) for path in small.paths("*")
    }
    other = run_stage(files, config.model_copy(update={"seed": 1}), key="f" * 64)
    assert synthetic(other).keys() != synthetic(first).keys()


def test_refused_texts_are_rejects_with_their_text_and_further_parents_fill_the_share(method):
    method.function = lambda text, seed: "totally different" if seed % 2 else reworded(text, seed)
    made = run_stage(corpus_of(NEWS, HELD_OUT), config_of(share=0.3, gates={"min_overlap": 0.3}))
    counted = Counter(verdicts(made).values())
    assert counted["kept"] == 6 and counted["too_far_from_parent"] > 0
    [row] = made.manifest.metrics["shares"]
    assert (row["target"], row["kept"], row["short"], row["documents"]) == (6, 6, 0, 20)
    assert made.manifest.metrics["refusals"]["swap"] == dict(sorted(counted.items()))
    refused = {name: row for name, row in rows(made, "synthetic").items() if row["verdict"] != "kept"}
    assert refused.keys() == rows(made, "rejects").keys()
    assert {row["text"] for row in refused.values() if row["verdict"] == "too_far_from_parent"} == {"totally different"}
    [score] = {row["score"] for row in rows(made, "rejects").values() if row["reason"] == "too_far_from_parent"}
    assert score == 0.0


def test_repetition_adds_the_same_text_and_a_share_of_0_is_for_genres_with_one_of_their_own():
    wiki = [document(f"wiki-{number}", prose(40 + number), genre="wiki") for number in range(10)]
    methods = [{"kind": "repetition", "share": 0}, {"kind": "swap", "share": 0}]
    config = SynthesizeConfig.model_validate(
        {"methods": methods, "shares": {"wiki": {"repetition": 0.5}}, "gates": {"clean_rules": False}}
    )
    made = run_stage(corpus_of([*NEWS, *wiki], HELD_OUT), config)
    texts = {row["id"]: row["text"] for row in wiki}
    assert len(synthetic(made)) == 5
    assert all(text == texts[name.removesuffix("~repetition")] for name, text in synthetic(made).items())
    gates = {gate["gate"] for row in rows(made, "synthetic").values() for gate in row["gates"]}
    assert gates == {"too_far_from_parent", "changed_number", "changed_name"}


def test_the_control_of_a_method_repeats_the_parents_that_it_takes():
    gates = {"clean_rules": False, "near": None, "max_nearness": None}
    parents = []
    for method in ({"kind": "keyboard"}, {"kind": "repetition", "parents_of": "keyboard"}, {"kind": "repetition"}):
        config = SynthesizeConfig.model_validate({"methods": [{**method, "share": 0.25}], "gates": gates})
        parents.append({name.partition("~")[0] for name in synthetic(run_stage(corpus_of(PLAIN, HELD_OUT), config))})
    assert len(parents[0]) == 5 and parents[0] == parents[1] != parents[2]


def test_where_too_few_texts_pass_the_missing_ones_are_counted(method):
    method.function = lambda text, seed: "nonsense"
    made = run_stage(corpus_of(NEWS, HELD_OUT), config_of(share=0.5, gates={"min_overlap": 0.3}))
    assert synthetic(made) == {} and made.manifest.counts["short_documents"] == 10
    assert len(verdicts(made)) == 20, "every document was a parent"


def test_failures_are_tried_again_and_then_rejects_never_empty_texts(method):
    calls = Counter()

    def busy(text: str, seed: int) -> str | Failure:
        calls[text] += 1
        number = int(text.split(".")[0][-1])
        if number == 1 and calls[text] < 3:
            return Failure("busy", may_succeed_later=True)
        return {2: Failure("busy", may_succeed_later=True), 3: Failure("too long"), 4: "  "}.get(number, text + " more")

    method.function = busy
    documents = [document(f"news-{number}", f"text of the mill {number}. {prose(number)}") for number in range(6)]
    made = run_stage(corpus_of(documents, HELD_OUT), config_of(tries=2, rounds=2))
    records = rows(made, "synthetic")
    assert {name[5]: (row["verdict"], row["detail"]) for name, row in records.items()} == {
        "0": ("kept", None), "1": ("kept", None), "2": ("not_made", "busy"), "3": ("not_made", "too long"),
        "4": ("not_made", "the output is empty"), "5": ("kept", None),
    }  # fmt: skip
    assert all(text.strip() for text in synthetic(made).values())
    by_number = {int(text.split(".")[0][-1]): count for text, count in calls.items()}
    assert by_number == {0: 1, 1: 3, 2: 4, 3: 1, 4: 4, 5: 1}, "tries x rounds"


def test_a_text_that_breaks_its_batch_does_not_cost_the_others(monkeypatch):
    class Fragile(FakeMethod):
        def rewrite(self, texts, seeds):
            outputs = super().rewrite(texts, seeds)
            if any("poison" in text for text in texts):
                raise ValueError("cannot")
            return outputs

    use(monkeypatch, Fragile(reworded))
    documents = [*NEWS[:5], document("bad", "poison " + prose(9))]
    made = run_stage(corpus_of(documents, HELD_OUT, files=1), config_of(rounds=1))
    assert Counter(verdicts(made).values()) == {"kept": 5, "not_made": 1}
    assert rows(made, "synthetic")["bad~swap"]["detail"] == "ValueError: cannot"


@pytest.mark.parametrize("outputs", [["one"], ["x"] * 99, [None] * 6])
def test_an_engine_that_answers_with_other_texts_or_none_makes_no_document(monkeypatch, outputs):
    fake = use(monkeypatch, FakeMethod(reworded))
    fake.rewrite = lambda texts, seeds: outputs if len(texts) > 1 or len(outputs) != 1 else [texts[0] + " again"]
    made = run_stage(corpus_of(NEWS[:6], HELD_OUT, files=1), config_of())
    assert len(synthetic(made)) == (6 if len(outputs) == 1 else 0) and "" not in synthetic(made).values()


def test_an_interrupted_stage_continues_at_the_document(method, monkeypatch):
    monkeypatch.setattr(generation, "COMMIT_SECONDS", 0.0)
    corpus, config = corpus_of(NEWS, HELD_OUT, files=1), config_of(batch_documents=2, gates={"near": {}})
    whole = run_stage(corpus, config, "whole", key="a" * 64)
    received = [text for batch in method.batches for text in batch]
    method.batches.clear()

    def gone(text: str, seed: int) -> str:
        if len(method.batches) > 3:
            raise EnvironmentProblem("the engine is gone")
        return reworded(text, seed)

    method.function = gone
    with pytest.raises(EnvironmentProblem, match="gone"):
        run_stage(corpus, config, "first")
    before = [text for batch in method.batches[:3] for text in batch]
    method.batches.clear()
    method.function = reworded
    again = run_stage(corpus, config, "second")
    after = [text for batch in method.batches for text in batch]
    assert sorted(before + after) == sorted(received) and len(before) == 6
    assert {path: again.read(path) for path in again.paths("*")} == {
        path: whole.read(path) for path in whole.paths("*")
    }


@pytest.mark.slow
def test_an_interrupted_stage_continues_with_other_workers_and_batches(tmp_path, monkeypatch):
    config = SynthesizeConfig.model_validate(
        {"methods": [{"kind": "swap", "share": 1}], "gates": {"clean_rules": False}}
    )
    whole = run_stage(corpus_of(NEWS, HELD_OUT, files=1), config)
    corpus, real = corpus_of(NEWS, HELD_OUT, files=1, url=str(tmp_path)), generation.rewrite
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(generation, "COMMIT_SECONDS", 0.0)
    monkeypatch.setattr(generation, "rewrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_stage(corpus, config.model_copy(update={"batch_documents": 2}), "first")
    again = run_stage(corpus, config.model_copy(update={"batch_documents": 5}), "second", engine="processes", workers=2)
    assert {path: again.read(path) for path in again.paths("*")} == {
        path: whole.read(path) for path in whole.paths("*")
    }


def test_duplicates_of_the_corpus_of_held_out_text_and_of_each_other_are_refused(method):
    copies = {0: NEWS[7]["text"], 1: HELD_OUT[2]["text"].upper(), 2: "the same for two", 3: "The same, for two!"}
    numbers = {row["text"]: number for number, row in enumerate(NEWS)}
    method.function = lambda text, seed: copies.get(numbers[text], text.replace("mil", "dam"))
    made = run_stage(corpus_of(NEWS, HELD_OUT), config_of(gates={"near": {}}))
    records = rows(made, "synthetic")
    twins = {name: row["detail"] for name, row in records.items() if row["verdict"] == "duplicate"}
    assert twins.pop("news-0~swap") == "news-7" and twins.pop("news-1~swap") == "held-2"
    [(name, twin)] = twins.items()
    assert {name, twin} == {"news-2~swap", "news-3~swap"}
    assert records["news-0~swap"]["gates"][-1] == {
        "gate": "duplicate", "passed": False, "score": 1.0, "detail": "news-7",
    }  # fmt: skip
    assert records["news-9~swap"]["verdict"] == "kept", "nearness to the own parent is another gate"


def test_benchmark_items_are_in_no_text_and_their_documents_have_no_children(method):
    item = "which of the seven rivers that feed the granite mill runs dry first in a hot summer"
    corpus = corpus_of(
        [*NEWS, document("leak", f"{item}. {prose(50)}"), document("tagged", prose(51), tags=["contaminated"])],
        HELD_OUT,
    )
    store = corpus.folder.url.rsplit("/", 2)[0]
    Folder(store).write("items.jsonl", json.dumps({"id": "q1", "question": item}).encode())
    inserts = {NEWS[3]["text"]: f"{NEWS[3]['text']} {item.upper()}!"}
    method.function = lambda text, seed: inserts.get(text, text + " more")
    gates = {"benchmarks": {"benchmarks": [f"{store}/items.jsonl"]}}
    made = run_stage(corpus, config_of(gates=gates))
    found = verdicts(made)
    assert found.pop("news-3~swap") == "benchmark_item" and set(found.values()) == {"kept"}
    assert not {"leak~swap", "tagged~swap"} & found.keys()
    assert made.manifest.counts["parents_with_benchmark_items"] == 2
    assert rows(made, "synthetic")["news-3~swap"]["detail"].endswith("items.jsonl#q1")


def test_benchmarks_that_dedup_keeps_out_must_not_be_forgotten(method):
    corpus = corpus_of(NEWS, HELD_OUT)
    manifest = corpus.manifest.model_copy(update={"config": {"decontaminate": {"benchmarks": ["glue/*.tsv"]}}})
    with pytest.raises(
        ConfigError, match=r"items of glue/\*.tsv out of .* as synthesize.gates.benchmarks.benchmarks too"
    ):
        run_stage(type(corpus)(corpus.folder, manifest), config_of())


def test_the_rules_of_clean_judge_texts_with_their_own_settings():
    settings = CleanConfig.model_validate({"by_genre": {"poem": {"rules": {"gopher_words": {"action": "off"}}}}})
    work = Work(corpus_of(NEWS), "", config_of(gates={"clean_rules": True}), [], rules_of, settings.model_dump())
    rules = rules_of(work.clean_settings or {})
    assert rules(document("a", GOOD)) is None
    assert rules(document("a", "too short")) == ("gopher_words", 2.0)
    assert rules(document("a", "too short", genre="poem")) != ("gopher_words", 2.0)
    with pytest.raises(ConfigError, match="names no artifact of clean"):
        run_stage(corpus_of(NEWS), config_of(gates={"clean_rules": True}), stage=SynthesizeStage(rules_of))


def test_a_missing_engine_refuses_the_run_or_is_left_out_and_named(monkeypatch):
    real = methods.build_method

    def build(config, store=None):
        if config.kind == "deletion":
            raise EnvironmentProblem("no deletor; get it with apt-get install deletor")
        return real(config, store)

    monkeypatch.setattr(methods, "build_method", build)
    stage, config = SynthesizeStage(), SynthesizeConfig.model_validate({"gates": {"clean_rules": False}})
    with pytest.raises(EnvironmentProblem, match=r"apt-get install deletor; or leave deletion out with --set"):
        stage.check(config)
    made = run_stage(corpus_of(NEWS, HELD_OUT), config.model_copy(update={"missing_engines": "skip"}))
    assert list(made.manifest.metrics["missing_engines"]) == ["deletion"]
    assert {name.rpartition("~")[2] for name in verdicts(made)} == {"swap"}


def test_the_plan_knows_the_speed_of_every_slow_engine():
    engines = {"apertium", "local_models", "endpoint", "checkpoint"}
    assert TEXT_BYTES_PER_SECOND.keys() == engines <= methods_kinds()


def planned(config, text_bytes=10_000_000):
    """Estimate of a config, and its seconds by kind of work."""
    volume = Volume(documents=1_000, text_bytes=text_bytes)
    estimate = SynthesizeStage().estimate(SynthesizeConfig.model_validate(config), volume, Capacity())
    return estimate, {work.kind: work.seconds for work in estimate.work}


def test_the_plan_follows_methods_shares_and_gates(monkeypatch):
    swap = {"kind": "swap", "share": 0.2}
    _, alone = planned({"methods": [swap]})
    assert set(alone) == {"synthesize swap", "synthesize near", "synthesize corpus", "synthesize start"}
    assert "synthesize near" not in planned({"methods": [swap], "gates": {"near": None}})[1]
    assert planned({"methods": [swap, swap]})[1]["synthesize swap"] == pytest.approx(2 * alone["synthesize swap"])
    by_genre, seconds = planned({"methods": [{"kind": "swap", "share": 0}], "shares": {"news": {"swap": 0.4}}})
    assert seconds["synthesize swap"] == pytest.approx(alone["synthesize swap"]), "half the genres have 0.4"
    assert by_genre.output.text_bytes == pytest.approx(12_000_000)
    real = methods.build_method

    def build(config, store=None):
        if config.kind == "synonyms":
            raise EnvironmentProblem("no WordNet")
        return real(config, store)

    monkeypatch.setattr(methods, "build_method", build)
    both = {"methods": [swap, {"kind": "synonyms", "share": 0.5}]}
    assert planned({**both, "missing_engines": "skip"})[1] == alone
    assert planned(both)[1]["synthesize synonyms"] > 0


def test_a_measured_synthesis_is_planned_as_it_was_measured():
    estimate, _ = planned({"methods": [{"kind": "swap", "share": 0.2}, {"kind": "keyboard", "share": 0.3}]})
    costs = measured_costs(estimate, 30.0, {"parents": 2.0, "texts": 20.0, "write": 3.0})
    assert Rates(learned=learned_rates(costs)).applied(estimate).seconds == pytest.approx(30.0)


def methods_kinds() -> set[str]:
    schema = SynthesizeConfig.model_json_schema()
    return set(schema["properties"]["methods"]["items"]["discriminator"]["mapping"])


ODD = {
    "one word": "Hello",
    "emoji": "🙂🙃 👩‍👩‍👧 🏳️‍🌈",
    "right to left": "ذهب الرجل إلى السوق واشترى خبزا. ثم عاد إلى البيت 12 مرة.",
    "no words": "—— ... !!",
    "thai": "ข้าวเหนียวมะม่วงอร่อยมาก",
    "han": "我在1999年去了北京。天气很好。",
    "spaces": "   \n ",
    "long": "word " * 100_000,
}


def test_odd_documents_are_parents_or_are_passed_over_and_counted():
    documents = [document(name, text, language=None, genre="unknown") for name, text in ODD.items()]
    config = SynthesizeConfig.model_validate(
        {"methods": [{"kind": "swap", "share": 1}, {"kind": "deletion", "share": 1}], "gates": {"clean_rules": False}}
    )
    made = run_stage(corpus_of(documents, HELD_OUT), config)
    assert made.manifest.counts["parents_too_long"] == 1
    assert len(verdicts(made)) == 2 * (len(ODD) - 1)
    assert sum(row["short"] for row in made.manifest.metrics["shares"]) == made.manifest.counts["short_documents"] > 0
    assert all(text.strip() for text in synthetic(made).values())
