"""The model that the harness asks answers as the harness's own backend for Hugging Face models does."""

import os
import signal

import pytest
import torch
from lm_eval.api.instance import Instance

from infra.store.filesystem import Folder
from modeling.export.huggingface import from_gpt_neox, to_gpt_neox, tokenizer_files
from stages.benchmark.evaluated_models import checkpoint
from stages.benchmark.harness import headrace_lm as language_model
from stages.benchmark.harness.answer_store import AnswerStore
from stages.benchmark.harness.headrace_lm import HeadraceLM
from stages.benchmark.harness.run_task import harness_model
from stages.benchmark.task import TaskContext
from stages.tokenize import byte_level_bpe
from tests.modeling.networks import small_network

CONTEXT = 64
TEXT = "the fox and the dog don't return 12 foxes, and True or False is 3.5 or not\n"
EXAMPLES = "Question: is the fox a dog?\nAnswer: no\n\nQuestion: don't dogs return 12 foxes\nAnswer: yes\n\n"
PROMPTS = [
    "", "the fox", "the fox ", "Question: the dog?\nAnswer:", EXAMPLES + "Question: and the fox?\nAnswer:",
    EXAMPLES + "Question: or not?\nAnswer:", EXAMPLES * 3 + "Question: the dog?\nAnswer:", "Größe, 東京",
]  # fmt: skip
CHOICES = [" yes", " no", " the dog and the fox", " 12 foxes", "é"]


def tokenizer():
    return byte_level_bpe.train([TEXT * 5, EXAMPLES], 300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GPT-NeoX checkpoint folder with random weights that prefer some tokens clearly."""
    return checkpoint_folder(tmp_path_factory.mktemp("random"), steps=0)


@pytest.fixture(scope="module", params=[0, 60], ids=["random", "trained"])
def either_folder(request, tmp_path_factory):
    """The same folder, and one of a network trained on the text."""
    return checkpoint_folder(tmp_path_factory.mktemp("either"), request.param)


def checkpoint_folder(folder, steps):
    model = small_network(context_length=CONTEXT, vocabulary_size=tokenizer().get_vocab_size())
    if steps:
        learn(model, steps)
    files = to_gpt_neox(model) | tokenizer_files(byte_level_bpe.to_json(tokenizer()), model.config)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def harness(either_folder):
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    return huggingface.HFLM(pretrained=str(either_folder), device="cpu", dtype="float32", batch_size=3)


def learn(model, steps):
    tokens = torch.tensor(tokenizer().encode((TEXT + EXAMPLES) * 8).ids)
    rows = tokens[: len(tokens) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 1 < losses[0]


def ours(folder, **settings):
    return HeadraceLM(from_gpt_neox(folder), tokenizer(), tokenizer().token_to_id("<|endoftext|>"), **settings)


def instances(kind, arguments):
    return [
        Instance(request_type=kind, doc={}, arguments=request, idx=0, metadata=("task", number, 1))
        for number, request in enumerate(arguments)
    ]


PAIRS = [(prompt, choice) for prompt in PROMPTS for choice in CHOICES] + [("the fox", " yes")]


def test_likelihoods_are_the_harness_own(either_folder, harness):
    requests = instances("loglikelihood", PAIRS)
    theirs = harness.loglikelihood(requests, disable_tqdm=True)
    results = ours(either_folder).loglikelihood(requests)
    assert [likelihood for likelihood, _ in results] == pytest.approx(
        [likelihood for likelihood, _ in theirs], abs=2e-4
    )
    assert [greedy for _, greedy in results] == [greedy for _, greedy in theirs]


def test_a_checkpoint_folder_gets_the_prompts_of_the_harness(either_folder, harness):
    lm = harness_model(checkpoint("pythia", either_folder), TaskContext(0))
    requests = instances("loglikelihood", PAIRS[:9])
    theirs = [likelihood for likelihood, _ in harness.loglikelihood(requests, disable_tqdm=True)]
    assert [likelihood for likelihood, _ in lm.loglikelihood(requests)] == pytest.approx(theirs, abs=2e-4)


def test_whole_texts_are_the_harness_own(either_folder, harness):
    # No two windows alike: of requests that read the same tokens, lm_eval 0.4.13 scores shorter continuations wrongly.
    long = " ".join(f"the fox and {number} dogs" for number in range(60))
    requests = instances("loglikelihood_rolling", [(TEXT,), (long,), ("é",)])
    theirs = harness.loglikelihood_rolling(requests, disable_tqdm=True)
    assert ours(either_folder).loglikelihood_rolling(requests) == pytest.approx(theirs, abs=2e-3)


@pytest.mark.parametrize("until", [["\n\n"], ["fox", " or", "é"], []])
def test_texts_are_the_harness_own(either_folder, harness, until):
    settings = {"until": until, "max_gen_toks": 20, "do_sample": False}
    requests = instances("generate_until", [(prompt, settings) for prompt in PROMPTS if prompt])
    theirs = harness.generate_until(requests, disable_tqdm=True)
    results = ours(either_folder).generate_until(requests)
    assert results == theirs
    assert not any(stop in text for text in results for stop in until)


def test_prompts_can_begin_as_documents_do(folder):
    end = "<|endoftext|>"
    plain, behind = ours(folder), ours(folder, prepend_end_of_text=True)
    written = instances("loglikelihood", [(end + prompt, choice) for prompt, choice in PAIRS if prompt])
    bare = instances("loglikelihood", [(prompt, choice) for prompt, choice in PAIRS if prompt])
    assert behind.loglikelihood(bare) == plain.loglikelihood(written) == behind.loglikelihood(written)
    assert behind.loglikelihood(bare) != plain.loglikelihood(bare)


def test_sampled_answers_differ_by_their_number_and_not_by_their_batch(folder, monkeypatch):
    settings = {"until": [], "max_gen_toks": 8, "do_sample": True, "temperature": 1.0}
    requests = instances("generate_until", [("the fox", settings)] * 3 + [("the dog", settings)])
    results = ours(folder, seed=1).generate_until(requests)
    assert len(set(results)) > 1
    monkeypatch.setattr(language_model, "GENERATED_ROWS", 1)
    assert ours(folder, seed=1).generate_until(requests) == results
    assert ours(folder, seed=2).generate_until(requests) != results


def test_a_killed_evaluation_resumes_at_the_item(folder, tmp_path, monkeypatch):
    """A process that SIGKILL ends in its third batch leaves the answers of the first two."""
    monkeypatch.setattr(language_model, "BATCH_TOKENS", 1)
    answers = Folder(f"{tmp_path}/answers")
    requests = instances("loglikelihood", PAIRS)
    batches = []

    def evaluate(kill_after):
        lm = ours(folder, answers=AnswerStore(answers, flush_seconds=0))
        inner = lm.model.hidden_states

        def counted(tokens, *rest):
            batches.append(len(tokens))
            if len(batches) == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            return inner(tokens, *rest)

        monkeypatch.setattr(lm.model, "hidden_states", counted)
        return lm.loglikelihood(requests)

    torch.set_num_threads(1)
    child = os.fork()
    if child == 0:
        evaluate(kill_after=9)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    kept = len(AnswerStore(answers))
    assert 0 < kept < len(set(PAIRS))
    resumed = evaluate(kill_after=-1)
    work_left = len(batches)
    assert resumed == ours(folder).loglikelihood(requests)
    batches.clear()
    assert evaluate(kill_after=-1) == resumed and not batches, "all answers are stored"
    fresh = Folder(f"{tmp_path}/fresh")
    answers = fresh
    evaluate(kill_after=-1)
    assert work_left < len(batches)
