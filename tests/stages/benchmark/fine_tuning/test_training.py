"""Fine-tuning learns, gives the same weights on several workers, and stores finished seeds."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import TrainingDivergedError
from infra.store.filesystem import Folder
from infra.workers.ray_session import close_ray
from modeling.compression.pruning import prune, zero_masks
from modeling.training.data_parallel import ALONE
from stages.benchmark.fine_tuning import training
from stages.benchmark.fine_tuning import workers as fine_tuning_workers
from stages.benchmark.fine_tuning.config import FineTunedTask, median_description
from stages.benchmark.fine_tuning.heads import ClassHead, ScaleHead, SpanHead
from stages.benchmark.fine_tuning.training import Examples, FineTuningJob, fine_tune, predict, trainable_network
from stages.benchmark.fine_tuning.workers import median_index, results_by_seed, seeds_note, train_and_predict
from stages.benchmark.task import EvaluatedModel, TaskContext
from tests.modeling.compressed_networks import COMPRESSIONS, DENSE
from tests.modeling.networks import small_network

CPU = torch.device("cpu")
in_both_precisions = pytest.mark.usefixtures("fast_bf16")


class Settings(FineTunedTask):
    kind: str = "toy"


TWO_EPOCHS = Settings(learning_rate=2e-3, epochs=2, batch_size=5, seeds=3)


def two_classes(width: int, seed: int) -> ClassHead:
    return ClassHead(width, 2, seed)


def rows_with_a_keyword(number: int, seed: int = 0) -> Examples:
    """Rows of 3 to 10 tokens; those of class 1 contain token 7, the others do not."""
    generator = np.random.default_rng(seed)
    rows = [generator.integers(10, 60, size=generator.integers(3, 11)).tolist() for _ in range(number)]
    labels = generator.integers(2, size=number)
    for row, label in zip(rows, labels, strict=True):
        if label:
            row[generator.integers(len(row))] = 7
    return Examples(rows, torch.from_numpy(labels))


def job(examples: int = 23, settings: FineTunedTask = TWO_EPOCHS, network=None) -> FineTuningJob:
    return FineTuningJob(network or small_network(1), two_classes, rows_with_a_keyword(examples), settings, 5)


@in_both_precisions
def test_a_keyword_is_learned():
    network = small_network(1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    settings = Settings(learning_rate=8e-3, epochs=8, batch_size=16)
    model = fine_tune(FineTuningJob(network, two_classes, rows_with_a_keyword(160), settings, 0), ALONE, CPU)
    test = rows_with_a_keyword(100, seed=1)
    predicted = np.array(predict(model, test.rows)).argmax(1)
    assert (predicted == test.targets.numpy()).mean() == 1
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())


@in_both_precisions
def test_outputs_are_in_order_and_independent_of_the_batch():
    model = fine_tune(job(), ALONE, CPU)
    rows = rows_with_a_keyword(9, seed=3).rows
    for row, outputs in zip(rows, predict(model, rows), strict=True):
        np.testing.assert_allclose(outputs, predict(model, [row])[0], atol=1e-5)


@given(st.integers(1, 90), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_has_every_item_once_in_batches_of_similar_size(items, batch_size, number):
    settings = TWO_EPOCHS.model_copy(update={"batch_size": batch_size})
    batches = job(items, settings, network="unused").epoch(number)
    assert sorted(np.concatenate(batches).tolist()) == list(range(items))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size and min(sizes) >= min(items, math.ceil(batch_size / 2))
    assert len(batches) == len(job(items, settings, network="unused").epoch(number + 1))


@torch.no_grad()
def test_losses_by_hand():
    hidden, lengths = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([4, 2])
    last = torch.stack((hidden[0, 3], hidden[1, 1]))
    classes, scale, span = ClassHead(8, 3, 0), ScaleHead(8, 1, 0), SpanHead(8, 2, 0)
    targets = torch.tensor([2, 0])
    assert classes.loss(hidden, lengths, targets) == pytest.approx(
        float(F.cross_entropy(classes.linear(last), targets))
    )
    numbers = torch.tensor([0.5, -1.0])
    assert scale.loss(hidden, lengths, numbers) == pytest.approx(
        float((scale.linear(last)[:, 0] - numbers).square().mean())
    )
    # The first row's tokens 1, 2, 3 may be chosen; the second one's 1 alone, which costs nothing.
    logits = span.linear(hidden[0, 1:])
    by_hand = logits.logsumexp(0) - torch.stack((logits[0, 0], logits[1, 1]))
    assert span.loss(hidden, lengths, torch.tensor([[1, 1, 2], [1, 1, 1]])) == pytest.approx(float(by_hand.sum() / 4))
    assert [logits.shape for logits in span.outputs(hidden, lengths)] == [(4, 2), (2, 2)]


@in_both_precisions
@pytest.mark.parametrize("name", [name for name in COMPRESSIONS if name not in DENSE or name == "prune"])
def test_every_kind_of_network_can_be_trained(name):
    original = COMPRESSIONS[name](small_network(3))
    network, remarks = trainable_network(original)
    assert any("float32 again" in remark for remark in remarks) == ("int" in name)
    assert any("stay zero" in remark for remark in remarks) == bool(zero_masks(network))
    one_epoch = TWO_EPOCHS.model_copy(update={"epochs": 1, "batch_size": 8})
    model = fine_tune(job(16, one_epoch, network), ALONE, CPU)
    changed = [
        name
        for name, parameter in model.network.named_parameters()
        if not torch.equal(parameter, network.get_parameter(name))
    ]
    assert "layers.0.feed_forward.down" in " ".join(changed)
    assert np.isfinite(np.array(predict(model, rows_with_a_keyword(4).rows))).all()


@in_both_precisions
def test_zeros_stay_and_other_weights_change():
    network = small_network(1)
    masks = prune(network, 0.5, "magnitude")
    model = fine_tune(job(network=network), ALONE, CPU)
    for name, kept in masks.items():
        weight = model.network.get_parameter(name)
        assert torch.equal(weight != 0, kept)
        assert not torch.equal(weight, network.get_parameter(name))


@pytest.mark.slow
def test_ray_workers_give_the_outputs_of_one_process(tmp_path):
    rows, calls = rows_with_a_keyword(7, seed=2).rows, []
    # Workers are processes of their own, which resolve `auto` from their hardware.
    one_process = job(400, TWO_EPOCHS.resolved(lambda devices: "fp32"))
    two_workers = job(400, TWO_EPOCHS.model_copy(update={"workers": 2}).resolved(lambda devices: "fp32"))
    context = TaskContext(0, Folder(str(tmp_path / "work")))
    try:
        outputs = train_and_predict(two_workers, rows, context, lambda done, total: calls.append((done, total)))
    finally:
        close_ray()
    expected = train_and_predict(one_process, rows, context, lambda done, total: None)
    np.testing.assert_allclose(np.array(outputs), np.array(expected), atol=1e-4)
    assert calls[-1] == (160, 160) and not context.work.exists("fine_tuning_workers")


def test_a_precision_overrides_that_of_the_hardware(fast_bf16, monkeypatch):
    precisions = []
    original = training.training_step

    def recorded(*arguments, **keywords):
        precisions.append(arguments[5])
        return original(*arguments, **keywords)

    monkeypatch.setattr(training, "training_step", recorded)
    fine_tune(job(5), ALONE, CPU)
    assert set(precisions) == {"bf16" if fast_bf16 else "fp32"}
    precisions.clear()
    fine_tune(job(5, TWO_EPOCHS.resolved(lambda devices: "fp32")), ALONE, CPU)
    assert set(precisions) == {"fp32"}


@in_both_precisions
def test_a_killed_task_resumes_at_the_seed(tmp_path, monkeypatch):
    model = EvaluatedModel("pretrained", small_network(1), None, 0, "d" * 64)
    rows, trained = rows_with_a_keyword(6, seed=2).rows, []
    progress: list[tuple[int, int]] = []

    def run(folder, dies_at=None):
        trained.clear()
        original = fine_tune

        def recorded(job, *rest):
            trained.append(job.seed)
            if job.seed == dies_at:
                raise KeyboardInterrupt
            return original(job, *rest)

        monkeypatch.setattr(fine_tuning_workers, "fine_tune", recorded)
        context = TaskContext(5, Folder(str(folder)), lambda *done: progress.append(done))
        return results_by_seed(job(), rows, lambda outputs: [row.tolist() for row in outputs], model, context)

    whole = run(tmp_path / "whole")
    assert trained == [5, 6, 7] and progress[-1] == (3000, 3000) and progress == sorted(progress)
    assert whole[0] != whole[1]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", dies_at=7)
    assert run(tmp_path / "killed") == whole and trained == [7]
    assert run(tmp_path / "killed") == whole and trained == []


@in_both_precisions
def test_divergence_is_an_error():
    with pytest.raises(TrainingDivergedError, match="lower the peak learning rate"):
        fine_tune(job(settings=Settings(learning_rate=1e20)), ALONE, CPU)


def test_the_median_of_an_even_number_is_the_lower_one():
    assert median_index([0.3, 0.1, 0.2]) == 2
    assert median_index([0.4, 0.1, 0.3, 0.2]) == 3
    assert seeds_note([0.5, 0.25], 3) == "seed 3: 0.5000, seed 4: 0.2500"
    assert (median_description(1), median_description(3)) == ("one seed", "median of 3 seeds")
    assert median_description(4) == "median of 4 seeds, the lower middle one"
