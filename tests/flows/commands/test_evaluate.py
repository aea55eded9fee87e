import pyarrow.parquet as pq
import pytest

from data_schemas.errors import ConfigError, NotFoundError
from data_schemas.tables import ITEMS, SCORES
from flows.commands.evaluate import evaluate
from flows.config.run_config import build_run_config
from modeling.compression.integers import quantize_int8
from modeling.export.huggingface import to_gpt_neox, tokenizer_files
from modeling.export.model_files import model_to_files
from stages.tokenize import byte_level_bpe
from tests.modeling.networks import small_network
from tests.stages.benchmark.networks import tokenizer

TASKS = [{"kind": "winograd", "limit": 10}, {"kind": "squad", "limit": 3, "max_new_tokens": 4}]


def config(tasks=TASKS):
    return build_run_config({"benchmark": {"tasks": tasks}}, "test")


@pytest.fixture
def folder(tmp_path):
    """Writes a network into a folder, as `headrace export` does."""

    def write(name: str, files: dict[str, bytes]) -> str:
        (tmp_path / name).mkdir()
        for path, data in files.items():
            (tmp_path / name / path).write_bytes(data)
        return str(tmp_path / name)

    return write


def network():
    return small_network(context_length=64, vocabulary_size=tokenizer().get_vocab_size())


def test_a_checkpoint_is_asked_and_an_evaluation_that_was_stopped_goes_on(folder, tmp_path, monkeypatch):
    model = network()
    tokenizer_json = byte_level_bpe.to_json(tokenizer())
    pythia = folder("pythia", to_gpt_neox(model) | tokenizer_files(tokenizer_json, model.config))
    output = str(tmp_path / "out")
    scores = evaluate(pythia, config(), output)
    assert scores.schema == SCORES and {"pythia", "random choice"} <= set(scores.column("model").to_pylist())
    items = pq.read_table(f"{output}/items.parquet")
    assert items.schema.names == ITEMS.names and items.num_rows > 13

    def nothing_new(_model, requests, _tokens):
        assert not requests, "asked again"
        return []

    monkeypatch.setattr("stages.benchmark.harness.headrace_lm.score_continuations", nothing_new)
    assert evaluate(pythia, config(), output).equals(scores)


def test_an_export_of_ours_keeps_its_integers_and_stands_behind_the_end_of_text(folder, tmp_path):
    compressed = quantize_int8(network())
    files = model_to_files(compressed) | {"tokenizer.json": byte_level_bpe.to_json(tokenizer())}
    scores = evaluate(folder("ours", files), config(TASKS[:1]), str(tmp_path / "out"), "int8").to_pylist()
    assert {row["task"] for row in scores if row["model"] == "int8"} == {"winograd"}


def test_nothing_to_ask_and_no_model_are_refused(tmp_path):
    with pytest.raises(NotFoundError, match=r"the folder .*none does not exist; download the checkpoint"):
        evaluate(str(tmp_path / "none"), config(), str(tmp_path / "out"))
    with pytest.raises(NotFoundError, match=r"has no config\.json"):
        evaluate(str(tmp_path), config(), str(tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"benchmark\.tasks is empty"):
        evaluate(str(tmp_path), config([]), str(tmp_path / "out"))
