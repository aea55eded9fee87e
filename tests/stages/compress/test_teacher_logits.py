import numpy as np
import pytest
import torch

from data_schemas.errors import ContractError
from infra.progress import SilentListener
from infra.store.filesystem import Folder
from modeling.distillation.loss import Comparison, distillation_loss, loss_from
from stages.common.token_stream import TokenStream, WindowSampler
from stages.compress import teacher_logits
from stages.compress.teacher_logits import LogitSettings, StoredLogits, store_logits
from tests.modeling.networks import small_network
from tests.stages.common.test_token_stream import tokens_artifact

CONTEXT, ROWS = 8, 10


@pytest.fixture
def sampler(tmp_path):
    documents = [np.random.default_rng(number).integers(0, 61, 50).tolist() for number in range(4)]
    return WindowSampler(TokenStream(tokens_artifact(str(tmp_path / "store"), documents), "train"), CONTEXT, seed=3)


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(teacher_logits, "FILE_ROWS", 4)


def stored(folder, sampler, top_k, temperature=1.0, rows=ROWS):
    teacher = small_network(1, context_length=CONTEXT)
    settings = LogitSettings.of(teacher, top_k, temperature, CONTEXT)
    store_logits(teacher, sampler, rows, settings, folder, SilentListener())
    return StoredLogits(folder, sampler, rows, settings)


@pytest.mark.parametrize("kind", ["forward", "reverse"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_all_of_the_vocabulary_stored_is_the_teacher_streamed(any_store, sampler, kind, temperature):
    """But for float16: 2^-11 of a log-probability of at most about 8."""
    read = stored(Folder(any_store), sampler, 1000, temperature)
    student, tokens = small_network(2), torch.from_numpy(sampler.rows(3, 4))
    ours = loss_from(read, Comparison(0.8, temperature, kind))(student, tokens, 0.0)
    exact = distillation_loss(small_network(1), 0.8, temperature, kind)(student, tokens, 0.0)
    assert float(ours.total.detach()) == pytest.approx(float(exact.total.detach()), abs=0.004)
    assert float(ours.cross_entropy) == pytest.approx(float(exact.cross_entropy))
    for gradient, exact_gradient in zip(
        *(torch.autograd.grad(loss.total, list(student.parameters())) for loss in (ours, exact)), strict=True
    ):
        torch.testing.assert_close(gradient, exact_gradient, rtol=0.02, atol=0.004 * float(exact_gradient.abs().max()))


def test_windows_are_found_by_position_and_by_their_tokens_in_any_order(any_store, sampler):
    read = stored(Folder(any_store), sampler, 5)
    windows = torch.from_numpy(sampler.rows(0, ROWS))[:, :-1]
    positions = [7, 0, 3]
    by_tokens, by_position = read(windows[positions]), [read.rows(position, 1) for position in positions]
    for actual, parts in zip(by_tokens, zip(*by_position, strict=True), strict=True):
        assert torch.equal(actual, torch.cat(parts))
    teacher = small_network(1, context_length=CONTEXT)
    with torch.no_grad():
        logarithms = teacher(windows[positions]).log_softmax(-1).flatten(0, 1)
    assert torch.equal(by_tokens.tokens, logarithms.topk(5).indices)
    together = torch.cat([by_tokens.log_probabilities_of, by_tokens.tail[:, None]], 1)
    torch.testing.assert_close(together.logsumexp(1), torch.zeros(24), rtol=0, atol=1e-6)
    torch.testing.assert_close(by_tokens.log_probabilities_of, logarithms.topk(5).values, rtol=2e-3, atol=2e-3)
    with pytest.raises(ContractError, match="not among the 10 whose predictions"):
        read(windows[:1] * 0 + 1)


def test_what_is_there_is_not_computed_again_unless_it_is_of_other_settings(tmp_path, sampler, monkeypatch):
    folder, runs = Folder(str(tmp_path / "work")), []
    predictions = teacher_logits._predictions
    monkeypatch.setattr(teacher_logits, "_predictions", lambda *args: runs.append(len(args[1])) or predictions(*args))
    stored(folder, sampler, 5)
    assert sum(runs) == ROWS
    folder.remove("teacher-logits/000000004.arrow")
    stored(folder, sampler, 5)
    assert sum(runs) == ROWS + 4, "the file that a killed process had not written"
    stored(folder, sampler, 5, temperature=2.0)
    stored(folder, sampler, 6, temperature=2.0)
    assert sum(runs) == 3 * ROWS + 4
    assert folder.names("teacher-logits") == ["000000000.arrow", "000000004.arrow", "000000008.arrow"]


def test_bytes_per_token():
    settings = LogitSettings.of(small_network(), 32, 1.0, CONTEXT)
    assert settings.bytes_per_token == 32 * (2 + 2) + 2
    wide = LogitSettings(32, 1.0, CONTEXT, 70_000, "")
    assert wide.bytes_per_token == 32 * (4 + 2) + 2
