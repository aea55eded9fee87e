"""Training and its checkpoints in a store on S3 that fails."""

import os
import uuid
from collections.abc import Iterator

import pytest
import torch

from data_schemas.errors import StoreUnavailable
from infra.named_errors import named_errors
from infra.progress import SilentListener
from infra.store import s3 as retries
from infra.store import uploads
from infra.store.filesystem import Folder
from infra.workers.ray_session import close_ray
from stages.common.token_stream import TokenStream, WindowSampler
from stages.pretrain import checkpoint_files, trainer
from stages.pretrain.checkpoints import Checkpoints
from stages.pretrain.config import PretrainConfig
from stages.pretrain.training_job import TrainingJob
from stages.stage import StageContext
from tests.infra.store.faulty_s3 import FaultyS3, faulty_s3
from tests.infra.store.s3_server import BUCKET, forget_clients, s3_server
from tests.stages.common.test_token_stream import tokens_artifact
from tests.stages.pretrain.test_checkpoints import ORIGIN, new_state

pytestmark = pytest.mark.slow


@pytest.fixture
def proxy(monkeypatch, tmp_path) -> Iterator[FaultyS3]:
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    monkeypatch.setattr(retries, "FIRST_DELAY_SECONDS", 0.001)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with s3_server() as environment, faulty_s3(environment["AWS_ENDPOINT_URL"]) as running:
        for name, value in (environment | {"AWS_ENDPOINT_URL": running.url}).items():
            monkeypatch.setenv(name, value)
        forget_clients()
        yield running


@pytest.fixture
def store(proxy) -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def test_a_checkpoint_whose_part_cannot_be_uploaded_does_not_count(store, proxy, monkeypatch):
    monkeypatch.setattr(uploads, "PART_BYTES", 20_000)
    folder, state = Folder(store), new_state()
    checkpoints = Checkpoints(folder, 0, ORIGIN, set)
    state.step = 2
    proxy.fail("PUT", "partNumber=2", "half upload", times=1)
    proxy.fail("POST", "uploadId", "lost answer", times=1)
    checkpoints.save(state)
    assert any("partNumber=2" in line for line in proxy.seen)
    expected = {name: tensor.clone() for name, tensor in state.tensors().items()}
    for tensor in state.tensors().values():
        tensor += 1
    state.step = 4
    rule = proxy.fail("PUT", "step-00000004.*partNumber=2", "500")
    with pytest.raises(StoreUnavailable, match="upload_part failed 9 times"), named_errors(store):
        checkpoints.save(state)
    rule.times = 0
    assert [name for name in folder.names("step-00000004") if name.endswith(".distcp")] == []
    other = new_state(seed=1)
    assert Checkpoints(folder, 0, ORIGIN, set).restore(other)
    assert other.step == 2
    assert all(torch.equal(other.tensors()[name], tensor) for name, tensor in expected.items())


def test_a_store_that_is_away_does_not_make_a_checkpoint_damaged(store, proxy):
    folder, state = Folder(store), new_state()
    for state.step in (2, 4):
        Checkpoints(folder, 0, ORIGIN, set).save(state)
    proxy.fail("GET", r"step-00000004/.*distcp", "503")
    checkpoints = Checkpoints(folder, 0, ORIGIN, set)
    with pytest.raises(StoreUnavailable):
        checkpoints.restore(new_state(seed=1))
    proxy.heal()
    assert checkpoints.restore(new_state(seed=1)) and checkpoints.damaged == []


def test_windows_are_read_once_whatever_fails(store, proxy):
    documents = [[list(range(1 + shard, 40_001 + shard))] for shard in range(3)]
    artifact = tokens_artifact(store, *documents)
    expected = WindowSampler(TokenStream(tokens_artifact("memory://" + uuid.uuid4().hex, *documents), "train"), 64, 0)
    for fault in ("503", "reset", "half download", "slow"):
        proxy.fail("GET", "arrow|parts", fault, times=2)
    sampler = WindowSampler(TokenStream(artifact, "train"), 64, 0)
    assert (sampler.rows(0, 500) == expected.rows(0, 500)).all()
    proxy.seen.clear()
    again = WindowSampler(TokenStream(artifact, "train"), 64, 0)
    assert (again.rows(0, 500) == expected.rows(0, 500)).all() and proxy.seen == [], "the local copy has them"


def test_two_workers_of_ray_train_from_s3(store, proxy, monkeypatch):
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    counting = [index % 13 + 1 for index in range(4_000)]
    artifact = tokens_artifact(store, [counting])
    config = PretrainConfig(
        model={"layers": 1, "width": 16, "heads": 2, "context_length": 8}, workers=2, tokens=20 * 128,
        batch_tokens=128, micro_batch=4, checkpoint_every_steps=10, log_every_steps=5, precision="fp32",
    )  # fmt: skip
    work = Folder(f"{store}/pretrain/{'a' * 64}/run/work")
    model_config = {**config.model.model_dump(), "vocabulary_size": 16}
    job = TrainingJob.from_config(config, trainer_config(model_config), artifact, work)
    proxy.every = 25
    try:
        outcome = trainer.train_on_ray(job, StageContext("run", None, work, SilentListener(), None, None))
    finally:
        close_ray()
    assert outcome.log[-1]["step"] == 20
    assert checkpoint_files.complete_steps(job.checkpoints)[0] == 20
    assert os.environ["AWS_ENDPOINT_URL"] == proxy.url


def trainer_config(values: dict):
    from modeling.transformer_config import TransformerConfig

    return TransformerConfig(**values)
