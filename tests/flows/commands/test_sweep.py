from pathlib import Path

import pytest

from flows.commands.sweep import print_sweep, sweep, sweep_json
from flows.report.build import write_report
from infra.store.runs import RunStore
from stages.compress.passes.prune import PrunePass
from stages.compress.passes.quantize import Int8Pass, PackedPass
from tests.flows.mini import Diary, mini_config, run, write_corpus
from tests.flows.report.page import Page

PRUNED = {"kind": "prune", "sparsity": 0.5, "rounds": 1, "recovery": {"tokens": 1_024, "batch_tokens": 512}}
RECIPES = {
    "pruned int8": (PRUNED, {"kind": "int8"}),
    "pruned int4": (PRUNED, {"kind": "int4", "calibration_rows": 4}),
    "too late": ({"kind": "int8"}, PRUNED),
    "pruned": (PRUNED,),
}


@pytest.fixture
def without_the_flow_engine(monkeypatch):
    monkeypatch.setattr("flows.pipeline.execute_request", lambda request, view: run(request)[0].run_id)


@pytest.fixture
def applied(monkeypatch):
    """Kinds of the passes that were applied."""
    kinds: list[str] = []

    def record(pass_class):
        apply = pass_class.apply
        monkeypatch.setattr(pass_class, "apply", lambda self, *rest: kinds.append(self.kind) or apply(self, *rest))

    for pass_class in (PrunePass, Int8Pass, PackedPass):
        record(pass_class)
    return kinds


def test_recipes_share_what_they_have_in_common_and_meet_in_the_report(
    tmp_path, without_the_flow_engine, applied, capsys
):
    store, config, view = f"{tmp_path}/store", mini_config(write_corpus(tmp_path / "texts")), Diary()
    done = sweep(config, RECIPES, store, view)
    assert [one.name for one in done] == list(RECIPES)
    assert applied == ["prune", "int8", "int4"], "pruning was done once"
    assert "cannot follow 'int8'" in done[2].refused and done[2].result is None
    results = {one.name: one.result for one in done if one.result}
    assert results["pruned int4"]["bytes"] < results["pruned int8"]["bytes"] < results["pruned"]["bytes"]
    assert len({str(one.teacher) for one in done if one.result}) == 1

    print_sweep(done)
    printed = capsys.readouterr().out
    assert "pruned int4" in printed and "refused: recipe 'too late'" in printed
    assert [row["run"] for row in sweep_json(done)["recipes"]] == [one.run_id for one in done]

    page = Page(Path(write_report(store, RunStore(store).get(done[-1].run_id))).read_text(encoding="utf-8"))
    page.assert_self_contained()
    assert "All compression recipes of this model" in page.text
    assert all(name in page.text for name in ("prune 0.5, int8", "prune 0.5, int4 gptq"))

    # The model of a run whose source has changed since.
    (tmp_path / "texts" / "part-0.jsonl.gz").unlink()
    other = {"pruned int8": RECIPES["pruned int8"]}
    again = sweep(config, other, store, view, base=RunStore(store).get(done[0].run_id))
    assert applied == ["prune", "int8", "int4"] and again[0].result == done[0].result
