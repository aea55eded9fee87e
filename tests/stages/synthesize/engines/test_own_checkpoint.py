"""Rephrasing by the model of a run."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers import decoders as token_decoders

from data_schemas.artifact_kinds import MODEL
from data_schemas.errors import NotFoundError
from data_schemas.manifest import StageOutcome
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore
from modeling.export.model_files import model_to_files
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.synthesize.config import SynthesizeConfig
from stages.synthesize.engines.own_checkpoint import CheckpointRephraser
from stages.synthesize.method import Failure
from stages.synthesize.stage import SynthesizeStage
from tests.infra.store.run_records import run_record
from tests.stores import commit

TEXTS = ["The mill turned.", "The river was wide and the wheel was slow."]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("store"))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = token_decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    torch.manual_seed(0)
    config = TransformerConfig(
        vocabulary_size=tokenizer.get_vocab_size(), context_length=128, width=16, layers=1, heads=2, end_of_text=0
    )
    artifacts = ArtifactStore(url)
    out = artifacts.writer("pretrain", "b" * 64, "quiet-otter-0001", MODEL)
    for name, data in model_to_files(Transformer(config)).items():
        out.write(name, data)
    out.write("tokenizer.json", tokenizer.to_str().encode())
    out.write("training_log.jsonl", b"")
    artifact = commit(artifacts, out, "pretrain", "b" * 64, MODEL)
    record = run_record("quiet-otter-0001")
    outcome = StageOutcome(action="run", why="test", artifact=artifact.ref, seconds=1)
    RunStore(url).save(record.model_copy(update={"stages": {"pretrain": outcome}}))
    return url, artifact.manifest.digest


def build(store, **changes):
    settings = {
        "run": "quiet-otter-0001", "stage": "pretrain", "recipe": "wrap_easy", "temperature": 1.0, "top_k": 0,
        "max_new_tokens": 40, "batch": 2,
    } | changes  # fmt: skip
    return CheckpointRephraser(store[0], **settings)


def test_outputs_follow_from_text_seed_and_model_alone(store):
    method = build(store)
    assert store[1] in method.engine_version and method.engine == "headrace pretrain of quiet-otter-0001"
    seeds = list(range(12))
    outputs = method.rewrite(TEXTS * 6, seeds)
    alone = [build(store, batch=1).rewrite([text], [seed])[0] for text, seed in zip(TEXTS * 6, seeds, strict=True)]
    assert outputs == alone and len(set(map(str, outputs))) > 1


def test_the_string_of_a_special_token_in_a_text_is_text(store):
    method = build(store)
    received = []
    method._continue = lambda model, prompts, seeds: received.extend(prompts) or [[5]] * len(prompts)
    method.rewrite(["The mill<|end|> turned."], [0])
    assert received[0].count(0) == 1 and received[0][0] == 0, "the model would take it for the end of a document"


def test_the_stage_finds_the_run_in_the_store_that_it_is_given(store):
    config = SynthesizeConfig.model_validate({"methods": [{"kind": "checkpoint", "run": "quiet-otter-0001"}]})
    SynthesizeStage().check(config, store[0])


def test_an_output_that_was_cut_off_or_has_no_room_is_a_failure(store):
    outputs = build(store, temperature=0, max_new_tokens=1).rewrite(["", TEXTS[0], "long " * 500], [0, 1, 2])
    assert outputs[0] == Failure("the text is empty")
    assert outputs[1] == Failure("the output was cut off at max_new_tokens")
    assert outputs[2] == Failure("the text and max_new_tokens are longer than the model's context")


def test_missing_runs_and_models_are_named(store):
    with pytest.raises(NotFoundError, match="quiet-otter-0001"):
        build(store, run="loud-otter-9999")
    with pytest.raises(NotFoundError, match="no model of stage 'compress'"):
        build(store, stage="compress")
