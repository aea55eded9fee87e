"""Recovery on several processes ends with the weights of one, whatever is killed on the way."""

import os
import signal
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing

from infra.progress import SilentListener
from infra.store.filesystem import Folder
from infra.workers.payload import PAYLOAD, load_payload, save_payload
from infra.workers.ray_session import close_ray
from infra.workers.ray_training import TrainingWorkers
from modeling.compression.activation_sparsity import (
    RisingPenalty,
    mean_activations,
    use_sparse_feed_forwards,
    with_penalty,
)
from modeling.compression.pruning import apply_masks, prune
from modeling.distillation.layer_matching import Matching
from modeling.distillation.loss import distillation_loss
from modeling.loss.cross_entropy import next_token_loss
from modeling.training.data_parallel import WorkerRank
from stages.compress import recovery as recovery_module
from stages.compress.pass_context import PassContext
from stages.compress.recovery import STATE, recover
from stages.compress.recovery_config import Recovery
from tests.modeling.networks import small_network
from tests.stages.common.test_token_stream import tokens_artifact

LENGTH, STEPS = 24, 12
FEW_ROWS = Recovery(tokens=STEPS * 5 * LENGTH, batch_tokens=5 * LENGTH, learning_rate=5e-4)
MANY_ROWS = Recovery(tokens=STEPS * 40 * LENGTH, batch_tokens=40 * LENGTH, learning_rate=5e-4)


class Stopped(Exception):
    pass


class StopTogether:
    """Raises after step 6 on several processes; a single process continues."""

    steps = 0

    def __call__(self, _):
        self.steps += 1
        if self.steps == 6 and distributed.is_initialized():
            raise Stopped


def pruned_and_taught():
    """A number of rows that two does not divide, a teacher, zeros that stay."""
    model = small_network(1)
    masks = prune(model, 0.5, "magnitude")
    loss = distillation_loss(small_network(2))
    return partial(recover, model, FEW_ROWS, loss_of=loss, after_step=lambda trained: apply_masks(trained, masks))


def experts():
    """Experts are balanced, and may be full, over micro-batches of 16 rows."""
    return partial(recover, small_network(1, experts={"experts": 4, "capacity_factor": 1.0}), MANY_ROWS)


def matched():
    """Hidden states compared relative to the teacher's mean square over a micro-batch."""
    teacher = small_network(2)
    loss = distillation_loss(teacher, matching=Matching(teacher, (0, 1), torch.eye(32), hidden_weight=1.0))
    return partial(recover, small_network(1), MANY_ROWS, loss_of=loss, rows_apart=False)


def penalized():
    """The penalty follows the zeros of a whole step, in any number of micro-batches; some steps reach the target."""
    model = small_network(1)
    use_sparse_feed_forwards(model)
    penalty = RisingPenalty(0.1, 4, 0.4015, mean_activations(model, torch.arange(LENGTH)[None]))
    model.add_module("activation_penalty", penalty)
    loss = with_penalty(next_token_loss, penalty)
    return partial(recover, model, MANY_ROWS, loss_of=loss, after_step=penalty.advance)


def stopped():
    return partial(recover, small_network(1), FEW_ROWS, after_step=StopTogether())


CASES = {make.__name__: make for make in (pruned_and_taught, experts, matched, penalized, stopped)}


def context_in(folder: Path) -> PassContext:
    documents = [[(number * step) % 60 + 1 for number in range(50)] + [0] for step in range(1, 31)]
    tokens = tokens_artifact(str(folder / "store"), documents)
    return PassContext(tokens, small_network, 0, Folder(str(folder / "work")), SilentListener(), "fp32")


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A context whose `work` has what two processes saved of each case."""
    context = context_in(tmp_path_factory.mktemp("together"))
    digests = {name: save_payload(context.work.child(name), make()) for name, make in CASES.items()}
    torch.multiprocessing.spawn(_train_all, (context, digests), nprocs=2)
    return context


def _train_all(rank: int, context: PassContext, digests: dict[str, str]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    rendezvous = f"file://{context.work.full('rendezvous')}"
    distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    recovery_module.SAVE_EVERY_STEPS = 4
    for name in CASES:
        work = context.work.child(name)
        with suppress(Stopped):
            train = load_payload(work, digests[name], torch.device("cpu"))
            train(replace(context, work=work, worker=WorkerRank(rank, 2)))
    distributed.destroy_process_group()


@pytest.mark.parametrize("name", CASES)
def test_two_processes_end_with_the_weights_of_one(name, together, tmp_path):
    expected, actual = CASES[name](), CASES[name]()
    expected(replace(together, work=Folder(str(tmp_path))))
    work = together.work.child(name)
    assert torch.load(work.local_path(STATE))["step"] == (4 if name == "stopped" else STEPS)
    actual(replace(together, work=work))  # reads what they have saved; continues alone if they stopped
    check_equal(actual, expected, 1e-5)


def check_equal(actual: partial, expected: partial, tolerance: float) -> None:
    (model, _), (expected_model, _) = actual.args, expected.args
    for name, tensor in expected_model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=0, atol=tolerance, msg=name)


class KillOnce:
    """The second of two workers is killed after step 130."""

    def __init__(self, marker: Path) -> None:
        self.marker, self.steps = marker, 0

    def __call__(self, _):
        self.steps += 1
        if self.steps == 130 and distributed.is_initialized() and distributed.get_rank() and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class RecordingListener(SilentListener):
    def __init__(self) -> None:
        self.done, self.messages = [], []

    def advanced(self, phase, done, total, note):
        self.done.append(done)

    def logged(self, message):
        self.messages.append(message)


@pytest.mark.slow
def test_a_killed_ray_worker_resumes_from_the_last_save(tmp_path):
    settings = FEW_ROWS.model_copy(update={"tokens": 200 * 5 * LENGTH})
    context, listener = context_in(tmp_path), RecordingListener()
    marker = tmp_path / "killed"

    def training() -> partial:
        return partial(recover, small_network(1), settings, after_step=KillOnce(marker))

    expected, actual = training(), training()
    expected(replace(context, work=Folder(str(tmp_path / "alone"))))
    assert not marker.exists()
    try:
        actual(replace(context, listener=listener, workers=TrainingWorkers("compress", 2, 2)))
    finally:
        close_ray()
    assert marker.exists()
    assert "recovery resumes after step 100 of 200" in listener.messages
    assert listener.done == [100, 200]
    assert not context.work.exists(PAYLOAD)
    check_equal(actual, expected, 1e-4)
