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
from infra.workers.payload import ORDER, load_payload, save_payload
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
    """After step 6, on several processes; one alone goes on."""

    steps = 0

    def __call__(self, _):
        self.steps += 1
        if self.steps == 6 and distributed.is_initialized():
            raise Stopped


def pruned_and_taught():
    """Rows that do not divide by two, a teacher, zeros that stay."""
    model = small_network(1)
    masks = prune(model, 0.5, "magnitude")
    loss = distillation_loss(small_network(2))
    return partial(recover, model, FEW_ROWS, loss_of=loss, after_step=lambda trained: apply_masks(trained, masks))


def experts():
    """Balanced, and full, over micro-batches of 16 rows."""
    return partial(recover, small_network(1, experts={"experts": 4, "capacity_factor": 1.0}), MANY_ROWS)


def matched():
    """Streams held against the teacher's mean square over a micro-batch."""
    teacher = small_network(2)
    loss = distillation_loss(teacher, matching=Matching(teacher, (0, 1), torch.eye(32), hidden_weight=1.0))
    return partial(recover, small_network(1), MANY_ROWS, loss_of=loss, rows_apart=False)


def penalized():
    """Goes by the zeros that a step has seen, in however many micro-batches; enough are there after some steps."""
    model = small_network(1)
    use_sparse_feed_forwards(model)
    penalty = RisingPenalty(0.1, 4, 0.4015, mean_activations(model, torch.arange(LENGTH)[None]))
    model.add_module("activation_penalty", penalty)
    loss = with_penalty(next_token_loss, penalty)
    return partial(recover, model, MANY_ROWS, loss_of=loss, after_step=penalty.advance)


def stopped():
    return partial(recover, small_network(1), FEW_ROWS, after_step=StopTogether())


CASES = {one.__name__: one for one in (pruned_and_taught, experts, matched, penalized, stopped)}


def context_in(folder: Path) -> PassContext:
    documents = [[(number * step) % 60 + 1 for number in range(50)] + [0] for step in range(1, 31)]
    tokens = tokens_artifact(str(folder / "store"), documents)
    return PassContext(tokens, small_network, 0, Folder(str(folder / "work")), SilentListener())


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A context; below its `work` what two processes saved of each case."""
    context = context_in(tmp_path_factory.mktemp("together"))
    for name, make in CASES.items():
        save_payload(context.work.child(name), make())
    torch.multiprocessing.spawn(_train_all, (context,), nprocs=2)
    return context


def _train_all(rank: int, context: PassContext) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    meeting = f"file://{context.work.full('meeting')}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    recovery_module.SAVE_EVERY_STEPS = 4
    for name in CASES:
        work = context.work.child(name)
        with suppress(Stopped):
            load_payload(work, torch.device("cpu"))(replace(context, work=work, place=WorkerRank(rank, 2)))
    distributed.destroy_process_group()


@pytest.mark.parametrize("name", CASES)
def test_two_processes_end_with_the_weights_of_one(name, together, tmp_path):
    expected, found = CASES[name](), CASES[name]()
    expected(replace(together, work=Folder(str(tmp_path))))
    work = together.work.child(name)
    assert torch.load(work.local_path(STATE))["step"] == (4 if name == "stopped" else STEPS)
    found(replace(together, work=work))  # reads what they have saved; where they stopped it goes on alone
    check_equal(found, expected, 1e-5)


def check_equal(found: partial, expected: partial, tolerance: float) -> None:
    (one, _), (other, _) = found.args, expected.args
    for name, tensor in other.state_dict().items():
        torch.testing.assert_close(one.state_dict()[name], tensor, rtol=0, atol=tolerance, msg=name)


class KillOnce:
    """The second of two workers dies without a word after step 130."""

    def __init__(self, marker: Path) -> None:
        self.marker, self.steps = marker, 0

    def __call__(self, _):
        self.steps += 1
        if self.steps == 130 and distributed.is_initialized() and distributed.get_rank() and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Heard(SilentListener):
    def __init__(self) -> None:
        self.done, self.sentences = [], []

    def advanced(self, phase, done, total, note):
        self.done.append(done)

    def logged(self, message):
        self.sentences.append(message)


@pytest.mark.slow
def test_a_killed_worker_of_ray_goes_on_from_the_last_save(tmp_path):
    settings = FEW_ROWS.model_copy(update={"tokens": 200 * 5 * LENGTH})
    context, heard = context_in(tmp_path), Heard()
    marker = tmp_path / "killed"

    def training() -> partial:
        return partial(recover, small_network(1), settings, after_step=KillOnce(marker))

    expected, found = training(), training()
    expected(replace(context, work=Folder(str(tmp_path / "alone"))))
    assert not marker.exists()
    try:
        found(replace(context, listener=heard, workers=TrainingWorkers("compress", 2, 2)))
    finally:
        close_ray()
    assert marker.exists()
    assert "recovery goes on behind step 100 of 200" in heard.sentences
    assert heard.done == [100, 200]
    assert not context.work.exists(ORDER)
    check_equal(found, expected, 1e-4)
