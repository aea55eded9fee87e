"""Checkpoints of other people, run by the harness's own backend: published architectures with random weights."""

import json

import pytest
import torch

from infra.store.filesystem import Folder
from stages.benchmark.evaluated_models import checkpoint
from stages.benchmark.harness.answer_store import AnswerStore
from stages.benchmark.harness.run_task import harness_model
from stages.benchmark.task import TaskContext, TransformersCheckpoint
from stages.benchmark.tasks.winograd.task import WinogradTask
from tests.stages.benchmark.harness.test_headrace_lm import PAIRS, instances

pytest.importorskip("transformers")
published_checkpoints = pytest.importorskip("tests.stages.benchmark.published_checkpoints")

NAMES = sorted(published_checkpoints.CONFIGS)
GREEDY = {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}
LONG = ("the fox and the dog don't return 12 foxes " * 60, " yes")
"""More tokens than Gemma 3's local attention reaches."""


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """Run checkpoints as float32 on the CPU on every machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="module", params=NAMES)
def folder(request, tmp_path_factory):
    return published_checkpoints.save(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def harness(folder):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=3)


def test_answers_equal_the_harness_s_item_by_item_and_are_stored(folder, harness, tmp_path, monkeypatch):
    model = checkpoint("published", folder)
    assert isinstance(model, TransformersCheckpoint)
    likelihoods = instances("loglikelihood", [*PAIRS, LONG])
    texts = instances("generate_until", [(prompt, GREEDY) for prompt, _ in PAIRS[5::9]])
    context = TaskContext(0, Folder(str(tmp_path)))
    lm = harness_model(model, context)
    results = lm.loglikelihood(likelihoods)
    theirs = harness.loglikelihood(likelihoods, disable_tqdm=True)
    assert [answer for answer, _ in results] == pytest.approx([answer for answer, _ in theirs], abs=1e-4)
    assert [greedy for _, greedy in results] == [greedy for _, greedy in theirs]
    assert len({round(answer, 2) for answer, _ in results}) > 20
    generated = lm.generate_until(texts)
    assert generated == harness.generate_until(texts, disable_tqdm=True)

    again = harness_model(model, context)
    for name in ("_model_call", "_model_generate"):
        monkeypatch.setattr(again, name, lambda *_, **__: pytest.fail("computed again"))
    assert again.loglikelihood(likelihoods) == results and again.generate_until(texts) == generated


def test_winograd_equals_the_harness_with_the_tokenizer_s_own_first_token(folder, harness):
    task = WinogradTask(limit=6)
    (accuracy, *_) = task.measure(checkpoint("published", folder), TaskContext(0))
    assert accuracy.score["model"] == "published" and len(accuracy.items) == 6
    pairs = [pair for item in task._items(0) for pair in item.completions()]
    theirs = [answer for answer, _ in harness.loglikelihood(instances("loglikelihood", pairs), disable_tqdm=True)]
    ours = [answer for item in accuracy.items for answer in json.loads(item["output"])["log_likelihoods"]]
    assert ours == pytest.approx(theirs, abs=1e-4)
    begins = harness.tok_encode("the fox")[0] == harness.tokenizer.bos_token_id
    assert begins == (json.loads((folder / "config.json").read_text())["model_type"] not in ("gpt_neox", "gpt2"))


def test_shards_with_an_index_answer_as_one_file(tmp_path):
    requests = instances("loglikelihood", PAIRS[:9])
    answers = []
    for number, shard_size in enumerate(["5GB", "20KB"]):
        folder = published_checkpoints.save("pythia-70m", tmp_path / str(number), max_shard_size=shard_size)
        answers.append(harness_model(checkpoint("pythia", folder), TaskContext(0)).loglikelihood(requests))
    assert (folder / "model.safetensors.index.json").is_file() and len(list(folder.glob("*.safetensors"))) > 1
    assert answers[0] == answers[1]


def test_an_answer_longer_than_the_context_is_limited(tmp_path):
    folder = published_checkpoints.save("gpt2", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    lm = harness_model(checkpoint("gpt2", folder), TaskContext(0))
    assert lm.max_length == config["n_positions"] == 1024 and isinstance(lm.answers, AnswerStore)
    request = instances("generate_until", [("the fox", GREEDY | {"max_gen_toks": 4096, "until": []})])[0]
    assert lm._limit_new_tokens(request).args[1]["max_gen_toks"] == 512
