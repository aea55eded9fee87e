from pathlib import Path

import pytest
from pydantic import create_model

from data_schemas.errors import ConfigError
from flows.config.run_config import (
    RunConfig,
    RunConfigBase,
    apply_overrides,
    build_run_config,
    load_run_config,
    section_of,
)
from flows.planning.stage_order import stages_read, volume_before
from flows.runs.request import RunRequest
from stages import registry
from stages.registry import STAGES, stage_named, stages_of, wiring
from stages.stage import Stage


def test_every_config_in_the_repository_is_valid():
    paths = sorted(Path(__file__).parents[3].glob("configs/*.yaml"))
    assert paths
    for path in paths:
        assert load_run_config(str(path)).name


def test_overrides_reach_nested_fields_and_lists():
    values = {"compress": {"passes": [{"kind": "prune"}, {"kind": "int8"}]}}
    config = build_run_config(
        apply_overrides(
            values, ["pretrain.model.width=64", "pretrain.peak_learning_rate=1e-3", "compress.passes.0.sparsity=0.7"]
        ),
        "test",
    )
    assert config.stage_config("pretrain").model.width == 64
    assert config.stage_config("pretrain").peak_learning_rate == 0.001
    assert config.stage_config("compress").passes[0].sparsity == 0.7
    assert values == {"compress": {"passes": [{"kind": "prune"}, {"kind": "int8"}]}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"pretrain": {"peak_learning_rat": 1}},
            r"unknown field 'pretrain\.peak_learning_rat'; did you mean 'peak_learning_rate'",
        ),
        ({"pretrian": {}}, r"unknown field 'pretrian'; did you mean 'pretrain'"),
        ({"pretrain": {"peak_learning_rate": -1}}, r"pretrain\.peak_learning_rate: .*greater than 0, found -1"),
        ({"pretrain": {"model": {"width": 100, "heads": 3}}}, r"heads is 3.*heads can be 1, 2, 5"),
        ({"execution": {"engine": "spark"}}, r"execution\.engine: .*'inline', 'processes' or 'ray', found 'spark'"),
        (
            {"compress": {"passes": [{"kind": "int8"}, {"kind": "prune"}]}},
            "the order that works is distill or structured, .* prune, then int8",
        ),
        ({"dedup": {"near": {"bands": 40, "rows": 8}}}, "more than the 128 permutations"),
    ],
)
def test_wrong_values_name_the_field_what_was_found_and_what_is_accepted(values, message):
    with pytest.raises(ConfigError, match=f"my.yaml: .*{message}"):
        build_run_config(values, "my.yaml")


@pytest.mark.parametrize("override", ["pretrain.tokens", "=3", "pretrain.seed.x=1", "compress.passes.9.sparsity=1"])
def test_wrong_overrides_are_quoted(override):
    with pytest.raises(ConfigError, match="--set"):
        build_run_config(apply_overrides({"pretrain": {"seed": 1}, "compress": {"passes": []}}, [override]), "x")


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the run config"):
        load_run_config(str(tmp_path / "none.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        load_run_config(str(tmp_path / "bad.yaml"))
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="holds a list"):
        load_run_config(str(tmp_path / "list.yaml"))


def test_each_input_is_wired_to_the_nearest_earlier_maker():
    wires = wiring(stages_of({}))
    assert wires["clean"] == {"documents": "ingest"}
    assert wires["dedup"] == {"documents": "clean"}
    assert wires["benchmark"] == {
        "corpus": "dedup",
        "tokens": "tokenize",
        "model": "pretrain",
        "compressed": "compress",
    }


def optional(name: str, like: str, output: str | None = None) -> Stage:
    """An optional stage with the input and config of another one."""
    model = stage_named(like)
    kind = stage_named(output or like).output
    values = {"name": name, "is_optional": True, "inputs": model.inputs, "output": kind, "Config": model.Config}
    return type(name, (type(model),), values)()  # type: ignore[no-any-return]


def test_optional_stages_are_wired_in_only_if_their_section_is_not_null(monkeypatch):
    position = [stage.name for stage in STAGES].index("tokenize")
    corpus_to_corpus, side = optional("more", "tokenize", "dedup"), optional("side", "tokenize", "benchmark")
    monkeypatch.setattr(registry, "STAGES", (*STAGES[:position], corpus_to_corpus, side, *STAGES[position:]))
    without = [stage.name for stage in stages_of({})]
    assert "more" not in without and stages_of({"more": None}) == stages_of({})
    sections = {"more": section_of(corpus_to_corpus), "side": section_of(side)}
    both: type[RunConfigBase] = create_model("Both", __base__=RunConfig, **sections)  # type: ignore[call-overload]
    assert [stage.name for stage in both().stages] == without
    config = both(more={}, side={})
    wires = wiring(config.stages)
    assert wires["more"] == {"corpus": "dedup"} and wires["side"] == wires["tokenize"] == {"corpus": "more"}
    assert wires["benchmark"]["corpus"] == "more"
    assert stages_read(config.stages, [stage_named("tokenize")]) == ["more"]
    assert volume_before(config.stages, stage_named("tokenize"), {"more": 3, "side": 4}) == 3  # type: ignore[dict-item, comparison-overlap]
    only_side = both(side={})
    assert wiring(only_side.stages)["tokenize"] == {"corpus": "dedup"}
    assert both().check_stage("tokenize") is None
    with pytest.raises(ConfigError, match=r"more is optional, .* section more: in the config, or with --set more="):
        RunRequest(both(), "memory://none", last_stage="more")
    assert RunRequest(config, "memory://none", last_stage="more").stages[-1] is corpus_to_corpus
    assert RunRequest(both(), "memory://none").config_digest == RunRequest(RunConfig(), "memory://none").config_digest


def test_every_field_of_every_stage_is_documented():
    assert set(RunConfig.model_fields) == {"name", "execution", *(stage.name for stage in STAGES)}
    for stage in STAGES:
        for name, field in stage.Config.model_fields.items():
            assert field.description, f"{stage.name}.{name}"


def test_unknown_stages_are_refused_with_the_list():
    with pytest.raises(Exception, match=r"no stage 'train'; the stages are: ingest, clean"):
        stage_named("train")
