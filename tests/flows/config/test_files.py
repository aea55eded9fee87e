"""Config files that extend one another, old field names, and whose fault an error is."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_schemas.errors import ConfigError
from data_schemas.manifest import RunRecord
from flows.config.files import merged, read_layers
from flows.config.run_config import load_run_config, recorded_config
from stages.registry import stages_of

CONFIGS = Path(__file__).parents[3] / "configs"


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return str(folder / f"{next(iter(files))}.yaml")


def test_mappings_are_merged_at_every_depth_and_lists_are_replaced(tmp_path):
    write(tmp_path, base="a: {b: {c: 1, d: [1, 2]}, e: 2}\nf: {g: 1}\nh: 5")
    write(tmp_path / "middle", middle="extends: ../base.yaml\na: {b: {d: [3]}}\nf:")
    top = write(tmp_path / "middle", top="extends: middle.yaml\na: {e: 7}\ni: new")
    assert merged(read_layers(top)) == {"a": {"b": {"c": 1, "d": [3]}, "e": 7}, "f": None, "h": 5, "i": "new"}


def test_the_values_of_layers_are_not_shared(tmp_path):
    layers = read_layers(write(tmp_path, top="extends: base.yaml", base="a: {b: [1]}"))
    merged(layers)["a"]["b"].append(2)
    assert merged(layers) == {"a": {"b": [1]}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "extends: b.yaml", "b": "extends: ./c.yaml", "c": "extends: b.yaml"},
         r"a\.yaml -> .*b\.yaml -> .*c\.yaml -> .*b\.yaml; remove"),
        ({"a": "extends: a.yaml"}, r"circle: .*a\.yaml -> .*a\.yaml"),
        ({"a": "extends: none.yaml"}, r"a\.yaml: extends: cannot read .*none\.yaml"),
        ({"a": "extends: [b.yaml]", "b": ""}, r"a\.yaml: extends is \['b\.yaml'\]; expected the path of one run"),
        ({"a": "extends: b.yaml", "b": "- 1"}, r"b\.yaml holds a list"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_extended_are_refused(tmp_path, files, message):
    with pytest.raises(ConfigError, match=message):
        read_layers(write(tmp_path, **files))


PASSES = "compress: {passes: [{kind: prune, sparsity: 0.5}, {kind: int8}]}"


@pytest.mark.parametrize(
    ("top", "base", "overrides", "message"),
    [
        ("pretrain: {seed: 1}", "pretrain: {tokens: -1}", [], r"base\.yaml: pretrain\.tokens: "),
        ("pretrain: {tokens: -1}", "pretrain: {tokens: 100}", [], r"top\.yaml: pretrain\.tokens: "),
        ("name: x", "pretrain: {token: 1}", [], r"base\.yaml: unknown field 'pretrain\.token'"),
        ("pretrain: {model: {heads: 3}}", "pretrain: {model: {width: 100}}", [], r"top\.yaml: pretrain\.model: heads"),
        ("name: x", "pretrain: {tokens: 100}", ["pretrain.tokens=-1"], "^--set pretrain.tokens=-1: pretrain.tokens: "),
        ("name: x", PASSES, ["name=y", "compress.passes.0.sparsity=2"], "^--set compress.passes.0.sparsity=2: comp"),
        ("name: x", PASSES.replace("0.5", "2"), ["compress.passes.0.rounds=2"], r"base\.yaml: compress\.passes\.0"),
        (PASSES.replace("0.5", "2"), PASSES, [], r"top\.yaml: compress\.passes\.0\.prune\.sparsity: "),
        ("name: x", "benchmark: {memorisation_documents: 3}", [],
         r"base\.yaml: benchmark\.memorisation_documents is called memorization_documents now$"),
        ("name: x", "", ["benchmark.memorisation_documents=3"],
         "^--set benchmark.memorisation_documents=3: benchmark.memorisation_documents is called memorization"),
        ("compress: {passes: [{kind: distill, initialise: random}]}", PASSES, [],
         r"top\.yaml: compress\.passes\.0\.distill\.initialise is called initialize now$"),
    ],
)  # fmt: skip
def test_an_error_names_the_file_or_option_that_set_the_field(tmp_path, top, base, overrides, message):
    path = write(tmp_path, top=f"extends: base.yaml\n{top}", base=base)
    with pytest.raises(ConfigError, match=message):
        load_run_config(path, overrides)


def test_configs_of_the_repository_keep_what_they_share_with_the_demo():
    demo = load_run_config(str(CONFIGS / "demo.yaml"))
    shared = [stage.name for stage in stages_of({}) if stage.name != "benchmark"]
    evaluation = load_run_config(str(CONFIGS / "eval-shared.yaml"))
    assert [name for name in shared if evaluation.stage_config(name) != demo.stage_config(name)] == []
    assert evaluation.name == "eval-shared" and len(evaluation.stage_config("benchmark").tasks) > 10
    compact = load_run_config(str(CONFIGS / "compact-95.yaml"))
    assert [name for name in shared if compact.stage_config(name) == demo.stage_config(name)] == shared[:3]
    model = compact.stage_config("pretrain").model
    assert (model.layers, model.width, model.heads, model.context_length) == (4, 192, 6, 256)
    assert [settings.kind for settings in compact.stage_config("compress").passes] == ["distill", "int4"]


def test_records_of_earlier_versions_are_read_with_the_names_of_today():
    config = {
        "name": "old",
        "compress": {"passes": [{"kind": "distill", "layers": 1, "initialise": "random"}]},
        "benchmark": {"memorisation_documents": 7},
    }
    record = RunRecord(
        run_id="old-run", config_name="old", config=config, config_digest="", status="finished", host="", pid=0,
        process_started=0, started=datetime.now(UTC),
    )  # fmt: skip
    current = recorded_config(record, ["benchmark.seed=3"])
    assert current.stage_config("benchmark").memorization_documents == 7
    assert current.stage_config("benchmark").seed == 3
    assert current.stage_config("compress").passes[0].initialize == "random"
    with pytest.raises(ConfigError, match=r"^--set .*: benchmark\.memorisation_documents is called"):
        recorded_config(record, ["benchmark.memorisation_documents=3"])


def test_a_setting_is_blamed_for_what_it_caused_and_for_nothing_else(tmp_path):
    """A rule about several fields of a section names none of them."""
    wrong, right = tmp_path / "wrong.yaml", tmp_path / "right.yaml"
    wrong.write_text("name: x\npretrain: {checkpoint_every_steps: 7}\n")
    right.write_text("name: x\n")
    for overrides in ([], ["pretrain.tokens=1000"], ["pretrain.tokens=1000", "clean.timeout_seconds=5"]):
        with pytest.raises(
            ConfigError, match=rf"^{wrong}: pretrain: checkpoint_every_steps is 7; it must be a multiple"
        ):
            load_run_config(str(wrong), overrides)
    load_run_config(str(wrong), ["pretrain.log_every_steps=7"])
    for overrides in (["pretrain.checkpoint_every_steps=7"], ["pretrain.checkpoint_every_steps=7", "name=y"]):
        with pytest.raises(ConfigError, match=r"^--set pretrain\.checkpoint_every_steps=7: pretrain: checkpoint_every"):
            load_run_config(str(right), overrides)
    with pytest.raises(ConfigError, match=r"^--set pretrain\.checkpoint_every_steps=8: .* is 8; it must"):
        load_run_config(str(wrong), ["pretrain.checkpoint_every_steps=8"])
