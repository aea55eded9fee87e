"""What is wrong with a checkpoint is said before anything is measured."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from data_schemas.errors import ContractError, EnvironmentProblem, HeadraceError, NotFoundError
from modeling.export.huggingface import to_gpt_neox, tokenizer_files
from stages.benchmark.checkpoint_folder import check_checkpoint
from stages.benchmark.config import BenchmarkConfig
from stages.benchmark.evaluated_models import checkpoint
from stages.benchmark.stage import BenchmarkStage
from stages.benchmark.task import TransformersCheckpoint
from stages.tokenize import byte_level_bpe
from tests.modeling.networks import small_network
from tests.stages.benchmark.networks import tokenizer

transformers = pytest.importorskip("transformers")
published_checkpoints = pytest.importorskip("tests.stages.benchmark.published_checkpoints")
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return published_checkpoints.save("pythia-70m", tmp_path_factory.mktemp("pythia"))


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "pythia"))


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def truncate(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1])


def leave_a_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 166029852\n")


def move_to_bin(folder):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def cache_layout(folder):
    inner = folder / "snapshots" / "a39f36b1"
    inner.mkdir(parents=True)
    for path in [path for path in folder.iterdir() if path.is_file()]:
        path.rename(inner / path.name)


def adapter_alone(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")


def index_without_shard(folder):
    names = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    files = dict.fromkeys(names, "model-00001-of-00002.safetensors") | {
        "embed_out.weight": "model-00002-of-00002.safetensors"
    }
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def index_of_other_shards(folder):
    index_without_shard(folder)
    save_file(
        {"other": load_file(next(folder.glob("*.safetensors")))["embed_out.weight"]},
        folder / "model-00002-of-00002.safetensors",
    )


BROKEN_FILES = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json; copy the whole folder"),
    "cut config": (lambda folder: (folder / "config.json").write_text('{"model_ty'), "config.json is not JSON"),
    "list as config": (lambda folder: (folder / "config.json").write_text("[]"), "contains a list, not an object"),
    "no model type": (lambda folder: (folder / "config.json").write_text("{}"), "names no model_type"),
    "cache of the hub": (cache_layout, "the model is .*snapshots/a39f36b1"),
    "adapter": (adapter_alone, "adapter alone: merge it"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "contains neither model.safetensors nor"),
    "pickles": (move_to_bin, "pytorch_model.bin, which can run code"),
    "cut weights": (truncate, r"model.safetensors is incomplete: it has \d+ bytes"),
    "empty weights": (lambda folder: (folder / WEIGHTS).write_bytes(b""), r"no readable safetensors file \(0 bytes\)"),
    "web page": (lambda folder: (folder / WEIGHTS).write_bytes(b"<html>404</html>"), "no readable safetensors"),
    "pointer": (lambda folder: leave_a_pointer(folder / WEIGHTS), "pointer of Git LFS.*lfs pull"),
    "missing shard": (index_without_shard, "model-00002-of-00002.safetensors is missing"),
    "other shard": (index_of_other_shards, "lacks the tensor embed_out.weight"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "pointer to tokenizer": (lambda folder: leave_a_pointer(folder / "tokenizer.json"), "tokenizer.json is a pointer"),
    "cut tokenizer": (lambda folder: (folder / "tokenizer.json").write_text('{"mod'), "tokenizer.json is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_plan_finds_broken_files_of_any_checkpoint(folder, saved, name):
    damage, message = BROKEN_FILES[name]
    damage(folder)
    config = BenchmarkConfig(checkpoints={"good": str(saved), "bad": str(folder)})
    with pytest.raises(HeadraceError, match=f"^checkpoint 'bad': .*{message}"):
        BenchmarkStage().check(config)


def without_tensor(folder):
    tensors = load_file(folder / WEIGHTS)
    del tensors["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


UNFIT = {
    "missing tensor": (without_tensor, "lacks gpt_neox.layers.1.mlp.dense_h_to_4h.weight of the network"),
    "other shape": (lambda folder: edit(folder / "config.json", intermediate_size=64), "calls for"),
    "more layers": (lambda folder: edit(folder / "config.json", num_hidden_layers=3), "lacks gpt_neox.layers.2"),
    "fewer tokens": (
        lambda folder: save_rows(folder, 100), "a tokenizer of 300 tokens .* its network knows 100 tokens"
    ),
    "code of its own": (
        lambda folder: edit(
            folder / "config.json", model_type="own", auto_map={"AutoConfig": "configuration_own.OwnConfig"}
        ),
        "cannot read .*without code of their own",
    ),
    "unknown type": (lambda folder: edit(folder / "config.json", model_type="warp9"), "cannot read .*warp9"),
    "no language model": (
        lambda folder: edit(folder / "config.json", architectures=["GPTNeoXForSequenceClassification"]),
        "GPTNeoXForSequenceClassification.*, which is no language model",
    ),
    "empty tokenizer": (lambda folder: (folder / "tokenizer.json").write_text('{"model": {}}'), "cannot read"),
    "no end of text": (
        lambda folder: edit(folder / "tokenizer_config.json", eos_token=None), "without an end-of-text token"
    ),
}  # fmt: skip


def save_rows(folder, rows):
    tensors = {
        name: tensor[:rows].clone() if "embed" in name else tensor
        for name, tensor in load_file(folder / WEIGHTS).items()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    edit(folder / "config.json", vocab_size=rows)


@pytest.mark.parametrize("name", UNFIT)
def test_files_that_do_not_fit_are_refused_before_anything_is_measured(folder, name):
    damage, message = UNFIT[name]
    damage(folder)
    config = BenchmarkConfig(checkpoints={"bad": str(folder)})
    with pytest.raises(ContractError, match=f"^checkpoint 'bad': .*{message}"):
        BenchmarkStage().run(config, {}, None, None)


def test_a_name_on_the_hub_is_no_folder():
    with pytest.raises(NotFoundError, match="hf download EleutherAI/pythia-70m --local-dir pythia-70m"):
        check_checkpoint("pythia", Path("EleutherAI/pythia-70m"))


@pytest.mark.parametrize("absent", ["transformers", "accelerate"])
def test_without_the_extra_one_sentence_names_it(saved, monkeypatch, absent):
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(EnvironmentProblem, match=rf"'gpt_neox' network, .* and {absent} cannot be imported; install"):
        check_checkpoint("pythia", saved)


def test_a_network_of_headrace_needs_no_transformers(tmp_path, monkeypatch):
    network = small_network(vocabulary_size=tokenizer().get_vocab_size())
    files = to_gpt_neox(network) | tokenizer_files(byte_level_bpe.to_json(tokenizer()), network.config)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert check_checkpoint("ours", tmp_path) == "gpt_neox"
    assert not isinstance(checkpoint("ours", tmp_path), TransformersCheckpoint)
    truncate(tmp_path)
    with pytest.raises(ContractError, match=r"checkpoint 'ours': .*is incomplete"):
        check_checkpoint("ours", tmp_path)
