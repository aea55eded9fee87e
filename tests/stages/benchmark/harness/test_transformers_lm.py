"""Checkpoints of other architectures, run by the harness's own backend."""

import json
import sys

import pytest
import torch

from data_schemas.errors import ContractError, EnvironmentProblem
from infra.store.filesystem import Folder
from stages.benchmark.evaluated_models import checkpoint
from stages.benchmark.harness.answer_store import AnswerStore
from stages.benchmark.harness.run_task import harness_model
from stages.benchmark.task import TaskContext, TransformersCheckpoint
from stages.benchmark.tasks.winograd.task import WinogradTask
from stages.tokenize import byte_level_bpe
from tests.stages.benchmark.harness.test_headrace_lm import PAIRS, instances
from tests.stages.benchmark.networks import tokenizer

transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """Run checkpoints as float32 on the CPU on every machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Llama with random weights."""
    folder = tmp_path_factory.mktemp("llama")
    transformers.set_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer().get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, bos_token_id=0, eos_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(byte_level_bpe.to_json(tokenizer()))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return folder


def test_answers_equal_the_harness_s_and_are_stored(folder, tmp_path, monkeypatch):
    from lm_eval.models.huggingface import HFLM

    model = checkpoint("llama", folder)
    assert isinstance(model, TransformersCheckpoint) and model.end_of_text == 0
    likelihoods = instances("loglikelihood", PAIRS)
    settings = {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}
    texts = instances("generate_until", [(prompt, settings) for prompt, _ in PAIRS[::9]])
    theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=3)
    context = TaskContext(0, Folder(str(tmp_path)))
    lm = harness_model(model, context)
    results = lm.loglikelihood(likelihoods)
    assert [likelihood for likelihood, _ in results] == pytest.approx(
        [likelihood for likelihood, _ in theirs.loglikelihood(likelihoods, True)], abs=1e-4
    )
    generated = lm.generate_until(texts)
    assert generated == theirs.generate_until(texts, disable_tqdm=True)

    whole = instances("generate_until", [(PAIRS[5][0], settings | {"max_gen_toks": 500, "until": []})])
    assert lm.generate_until(whole)[0] is not None
    again = harness_model(model, context)
    for name in ("_model_call", "_model_generate"):
        monkeypatch.setattr(again, name, lambda *_, **__: pytest.fail("computed again"))
    assert again.loglikelihood(likelihoods) == results and again.generate_until(texts) == generated


def test_tasks_ask_it_as_any_model(folder):
    (accuracy, *_) = WinogradTask(limit=6).measure(checkpoint("llama", folder), TaskContext(0))
    assert accuracy.score["model"] == "llama" and len(accuracy.items) == 6
    lm = harness_model(checkpoint("llama", folder), TaskContext(0))
    assert len(lm.answers) == 0 and isinstance(lm.answers, AnswerStore)


def test_without_transformers_or_tokenizer_it_is_refused(folder, tmp_path, monkeypatch):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ContractError, match=r"checkpoints 'llama': the tokenizer in .* cannot be read"):
        checkpoint("llama", tmp_path)
    monkeypatch.setitem(sys.modules, "stages.benchmark.harness.transformers_lm", None)
    with pytest.raises(EnvironmentProblem, match=r"'llama' model.*pip install 'headrace\[transformers\]'"):
        checkpoint("llama", folder)
