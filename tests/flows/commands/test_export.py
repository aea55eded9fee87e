"""`headrace export` and `headrace generate FOLDER` over a small store that was made by hand."""

import re
from datetime import UTC, datetime

import pyarrow as pa
import pytest
import torch
import yaml
from typer.testing import CliRunner

from data_schemas.artifact_kinds import COMPRESSED_MODEL, CORPUS, MODEL, RESULTS, TOKENS
from data_schemas.errors import ConfigError, ContractError, NotFoundError
from data_schemas.manifest import Manifest, RunRecord, StageOutcome, Volume, content_digest
from data_schemas.tables import FUNNEL, ITEMS, SCORES, token_shard_schema
from flows.cli import app
from flows.commands.export import ExportRequest, export
from flows.commands.generate import continue_text
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore
from modeling.compression.integers import quantize_int8
from modeling.export.model_files import model_from_files, model_to_files
from stages.tokenize import byte_level_bpe
from tests.modeling.networks import SMALL, small_network
from tests.stores import documents_table, no_rejects

RUN = "quiet-otter-3f9a"
TEXT = "The fox and the dog don't return 12 foxes.\n" * 30
SCORE = {
    "task": "held-out text", "metric": "bits per byte", "value": 1.234, "low": 1.2, "high": 1.3, "items": 7,
    "higher_is_better": False,
}  # fmt: skip


def commit(url, stage, kind, write, inputs, **facts):
    """A committed artifact with a whole manifest."""
    store = ArtifactStore(url)
    out = store.writer(stage, stage[0] * 64, RUN, kind)
    write(out)
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)
    given = {"config": {}, "counts": {}, "metrics": {}, "volume": Volume()} | facts
    manifest = Manifest(
        stage=stage, stage_version=1, kind=kind.name, kind_version=kind.version, key=stage[0] * 64, attempt=RUN,
        digest=content_digest(list(out.files.values())), inputs=inputs, files=list(out.files.values()),
        code={"commit": "c0ffee", "dirty": True}, packages={"torch": "2.13.0"}, device={}, started=now, ended=now,
        phases={}, peak_memory_bytes=0, **given,
    )  # fmt: skip
    out.commit(manifest)
    return manifest.ref


def write_corpus(out):
    licensed = documents_table({"a": TEXT, "b": TEXT}, licence="CC BY 4.0", language="en")
    other = documents_table({"c": TEXT}).set_column(2, "source", pa.array(["a | b"]))
    out.write_table("train/00000.parquet", pa.concat_tables([licensed, other.cast(licensed.schema)]))
    out.write_table("held_out/00000.parquet", documents_table({"d": TEXT}))
    out.write_table("rejects/00000.parquet", no_rejects())
    out.write_table("funnel/00000.parquet", FUNNEL.empty_table())


def make_run(url, model, compressed=None, **record):
    """A run with everything an export looks at; the tokenizer has 280 tokens."""
    tokenizer = byte_level_bpe.train([TEXT], 280)
    ids = [int(token) for token in byte_level_bpe.encode_documents(tokenizer, [TEXT])[0]]
    shard = pa.Table.from_pylist(
        [{"document_id": "d", "tokens": ids, "bytes": len(TEXT)}], token_shard_schema(pa.uint16())
    )
    data = byte_level_bpe.to_json(tokenizer)

    def write_tokens(out):
        out.write("tokenizer.json", data)
        for split in ("train", "held_out"):
            out.write_table(f"{split}/00000.arrow", shard)

    def write_model(one, more):
        def write(out):
            for name, content in (model_to_files(one) | {"tokenizer.json": data} | more).items():
                out.write(name, content)

        return write

    def write_results(out):
        rows = [{**SCORE, "model": name} for name in ("pretrained", "compressed", "5-grams")]
        out.write_table("scores.parquet", pa.Table.from_pylist(rows, SCORES))
        out.write_table("items.parquet", ITEMS.empty_table())
        out.write("samples.json", b"[]")

    corpus = commit(url, "dedup", CORPUS, write_corpus, {})
    counts = {"train_documents": 3, "train_bytes": 3 * len(TEXT), "train_tokens": 3 * len(ids)}
    tokens = commit(url, "tokenize", TOKENS, write_tokens, {"corpus": corpus}, counts=counts)
    metrics = {"tokens": 8192, "epochs": 1.5, "steps": 16, "final_loss": 5.4321, "precision": "fp32"}
    volume = Volume(parameters=12_345)
    stages = {"dedup": corpus, "tokenize": tokens}
    stages["pretrain"] = commit(
        url, "pretrain", MODEL, write_model(model, {"training_log.jsonl": b""}), {"tokens": tokens},
        metrics=metrics, volume=volume, config={"peak_learning_rate": 6e-4},
    )  # fmt: skip
    passes = [{"name": "int8", "bytes": 14_693, "bits_per_byte": 4.726, "parameters": 9_876}]
    stages["compress"] = commit(
        url, "compress", COMPRESSED_MODEL, write_model(compressed or quantize_int8(model), {}),
        {"model": stages["pretrain"], "tokens": tokens}, metrics={"passes": passes}, volume=volume,
    )  # fmt: skip
    inputs = {"model": stages["pretrain"], "compressed": stages["compress"]}
    stages["benchmark"] = commit(url, "benchmark", RESULTS, write_results, inputs)
    outcomes = {name: StageOutcome(action="run", why="", artifact=ref, seconds=1) for name, ref in stages.items()}
    fields = {
        "run_id": RUN, "config_name": "small", "config": {}, "config_digest": "", "status": "finished", "host": "here",
        "pid": 1, "process_started": 0.0, "started": datetime(2026, 11, 25, tzinfo=UTC), "stages": outcomes,
    } | record  # fmt: skip
    RunStore(url).save(RunRecord.model_validate(fields))


@pytest.fixture(scope="module")
def network():
    return small_network(vocabulary_size=280)


@pytest.fixture(scope="module")
def store(tmp_path_factory, network):
    url = str(tmp_path_factory.mktemp("store"))
    make_run(url, network)
    return url


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_export_for_transformers_does_what_its_card_says(store, network, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "new" / "out"
    [line] = export(ExportRequest(store, RUN, str(folder)))
    assert "pretrain of run quiet-otter-3f9a for huggingface" in line
    assert names(folder) == [
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert names(folder.parent) == ["out"]
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL).group(1)
    monkeypatch.chdir(folder.parent)
    found = {}
    exec(code.replace("max_new_tokens=40", "max_new_tokens=9, do_sample=False"), found)
    greedy = {"prompt": "The", "tokens": 9, "temperature": 0.0, "top_k": 1, "seed": 0, "stage": "pretrain"}
    expected = continue_text(store, source=RUN, **greedy)
    assert capsys.readouterr().out.strip().removesuffix("<|endoftext|>") == expected.strip()
    assert continue_text(store, source=str(folder), **greedy) == expected, "and Headrace reads it too"
    assert continue_text(store, source="out", **greedy) == expected


def test_the_card_says_what_the_manifests_say(store, tmp_path):
    export(ExportRequest(store, RUN, str(tmp_path / "out")))
    _, front, body = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "language": ["en"], "library_name": "transformers", "pipeline_tag": "text-generation",
        "tags": ["headrace", "gpt_neox"],
    }  # fmt: skip
    record = RunStore(store).get(RUN)
    for stage in ("pretrain", "tokenize", "dedup"):
        ref = record.stages[stage].artifact
        assert f"| `{ref.label}` | `{ref.digest}` | 2026-11-25 |" in body
    for row in (
        "| parameters | 12,345 |",
        "| layers | 2 |",
        "| context length | 24 tokens |",
        "| tokens | 8,192 |",
        "| final loss | 5.4321 nats per token, on training text |",
        "| peak learning rate | 0.0006 |",
        "| tests | CC BY 4.0 | en | 2 |",
        "| a \\| b | not stated |  | 1 |",
        "| held-out text | bits per byte (lower is better) | 1.234 | 1.2 to 1.3 | 7 |",
    ):
        assert row in body
    assert body.count("held-out text |") == 1, "baselines are not scores of this model"
    assert "3 documents, " in body
    assert "commit `c0ffee`, with uncommitted changes, with torch 2.13.0." in body


def test_a_card_leaves_out_what_nobody_knows(tmp_path, network):
    """Another model was scored, and what the model was made from is gone."""
    url = str(tmp_path / "store")
    make_run(url, network)
    record = RunStore(url).get(RUN)
    stages = record.stages | {"pretrain": record.stages["pretrain"]}
    benchmark = ArtifactStore(url).open(stages["benchmark"].artifact)
    changed = benchmark.manifest.inputs["model"].model_copy(update={"digest": "other"})
    manifest = benchmark.manifest.model_copy(update={"inputs": {"model": changed}})
    benchmark.folder.write(f"{RUN}/manifest.json", manifest.model_dump_json().encode())
    ArtifactStore(url).root.remove("dedup")
    export(ExportRequest(url, RUN, str(tmp_path / "out"), format="headrace"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| gone from the store |" in card
    assert "## Scores" not in card and "measured no scores of this model" in card
    assert "language:" not in card and "license as stated" not in card


def test_an_export_for_llama_cpp_states_its_error(store, tmp_path):
    gguf = pytest.importorskip("gguf")
    [_, error] = export(ExportRequest(store, RUN, str(tmp_path / "out"), format="gguf", dtype="float16"))
    assert names(tmp_path / "out") == ["README.md", "model.gguf"]
    relative, tokens = re.search(r"changes the logits by (\S+) of .* measured on (\d+) tokens", error).groups()
    assert 0 < float(relative) < 1e-3 and int(tokens) >= 24
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    assert reader.fields["general.description"].contents() == error
    assert error in (tmp_path / "out" / "README.md").read_text()


def test_an_export_for_onnxruntime_does_what_its_card_says(store, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    export(ExportRequest(store, RUN, str(tmp_path / "out"), format="onnx"))
    assert names(tmp_path / "out") == ["README.md", "model.onnx", "tokenizer.json"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`logits` (batch, tokens, 280) float32" in card
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1).replace("range(40)", "range(9)"), {})
    greedy = {"prompt": "The", "tokens": 9, "temperature": 0.0, "top_k": 1, "seed": 0, "stage": "pretrain"}
    assert capsys.readouterr().out.strip() == continue_text(store, source=RUN, **greedy).strip()
    with pytest.raises(ContractError, match=r"is an export for another program.* generate reads the formats headrace"):
        continue_text(store, source="out", **greedy)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_network_exports_in_headraces_own_format(store, tmp_path, dtype):
    folder = tmp_path / "out"
    export(ExportRequest(store, RUN, str(folder), format="headrace", stage="compress", dtype=dtype))
    assert names(folder) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert "compression: int8 | 14.7 kB, 4.726 bits per byte" in (folder / "README.md").read_text()
    arguments = {"prompt": "", "tokens": 9, "temperature": 0.9, "top_k": 9, "seed": 5, "stage": "compress"}
    text = continue_text(store, source=str(folder), **arguments)
    assert dtype != "float32" or text == continue_text(store, source=RUN, **arguments)
    files = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    assert model_from_files(*files.values()).head.weight.dtype == torch.int8


@pytest.mark.parametrize(
    "shape",
    [
        {"attention": [{"kind": "full"}, {"kind": "pooled", "window": 8, "levels": [{"stride": 4}]}]},
        {"experts": {"experts": 4, "active": 2}, "separate_documents": True, "base_width": 16},
        {"embedding_bands": [{"entries": 100, "width": 32}, {"width": 8}], "tied_embeddings": False},
    ],
)
def test_networks_that_only_headrace_has_come_back(tmp_path, shape):
    url = str(tmp_path / "store")
    make_run(url, small_network(vocabulary_size=280, **shape), small_network(vocabulary_size=280, **shape))
    folder = tmp_path / "out"
    export(ExportRequest(url, RUN, str(folder), format="headrace"))
    arguments = {"prompt": "The", "tokens": 9, "temperature": 0.9, "top_k": 9, "seed": 5, "stage": "pretrain"}
    assert continue_text(url, source=str(folder), **arguments) == continue_text(url, source=RUN, **arguments)
    with pytest.raises(ContractError, match=r"--format headrace"):
        export(ExportRequest(url, RUN, str(tmp_path / "hf")))


@pytest.mark.parametrize("target", ["huggingface", "gguf"])
def test_what_a_format_cannot_express_is_refused_and_leaves_nothing(store, network, tmp_path, target):
    request = ExportRequest(store, RUN, str(tmp_path / "out"), format=target, stage="compress")
    with pytest.raises(ContractError, match=r"has int8_embedding as embedding, .*--format headrace.*--stage pretrain"):
        export(request)
    assert names(tmp_path) == []
    other = str(tmp_path / "store")
    windows = small_network(vocabulary_size=280, attention=[{"kind": "window", "window": 8}])
    make_run(other, windows)
    with pytest.raises(ContractError, match=r"the network has window attention, which .* GPT-NeoX cannot express"):
        export(ExportRequest(other, RUN, str(tmp_path / "out"), format=target))
    assert names(tmp_path) == ["store"]


def test_a_failure_at_the_end_leaves_nothing(store, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr("flows.commands.export.model_card", fail)
    with pytest.raises(OSError, match="disk is full"):
        export(ExportRequest(store, RUN, str(tmp_path / "out")))
    assert names(tmp_path) == []


def test_folders_in_use_are_left_alone(store, tmp_path):
    (tmp_path / "empty").mkdir()
    export(ExportRequest(store, RUN, str(tmp_path / "empty"), format="headrace"))
    before = names(tmp_path / "empty")
    with pytest.raises(ConfigError, match="is not empty; export writes a new folder"):
        export(ExportRequest(store, RUN, str(tmp_path / "empty")))
    assert names(tmp_path / "empty") == before
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        export(ExportRequest(store, RUN, str(tmp_path / "file")))


def test_generate_says_what_a_folder_lacks(store, network, tmp_path):
    def go_on(source):
        return continue_text(store, str(source), "pretrain", "The", 3, 0.0, 1, 0)

    with pytest.raises(NotFoundError, match=r"holds no config.json; generate reads an export's folder, or a run's id"):
        go_on(tmp_path)
    folder = tmp_path / "out"
    export(ExportRequest(store, RUN, str(folder), format="headrace"))
    tokenizer = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(NotFoundError, match=r"has no tokenizer.json"):
        go_on(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer)
    for name, data in model_to_files(small_network()).items():
        (folder / name).write_bytes(data)
    assert SMALL.vocabulary_size < 280
    with pytest.raises(ContractError, match=r"has 280 tokens and the network 61"):
        go_on(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ContractError, match=r"of the type 'llama'"):
        go_on(folder)
    with pytest.raises(NotFoundError, match="no run 'nothing-here'"):
        go_on("nothing-here")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["export", "latest", "out"], 0, "for huggingface"),
        (["export", "latest", "out", "--format", "headrace", "--stage", "compress"], 0, "compress of run"),
        (["export", "latest", "out", "--format", "headrace", "--dtype", "float16"], 2, "supports float32 and bfloat16"),
        (["export", "latest", "out", "--stage", "dedup"], 2, "no model of stage 'dedup'; it has: compress, pretrain"),
        (["export", "other", "out"], 2, "no run 'other'"),
        (["export", "latest", "out", "--format", "onnx", "--stage", "compress"], 0, "for onnx"),
        (["export", "latest", "out", "--format", "tf"], 2, "is not one of 'huggingface', 'gguf', 'onnx', 'headrace'"),
        (["generate", "latest", "The", "--tokens", "2"], 0, "The"),
        (["generate", "./none", "The"], 2, "no run './none'"),
    ],
)
def test_the_commands(store, tmp_path, monkeypatch, arguments, status, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(app, [*arguments, "--store", store])
    assert done.exit_code == status, done.output
    assert said in done.output
    assert names(tmp_path) == (["out"] if status == 0 and arguments[0] == "export" else [])
