import pytest
import torch
from pydantic import ValidationError

from infra.filesystem import Folder
from infra.token_stream import TokenStream, WindowSampler
from modeling.checkpoint import model_to_files
from modeling.counting import parameters
from modeling.int8_linear import Int8Linear
from modeling.pruning import linear_weights
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.compress.measurement import HeldOutText, measure, nonzero_parameters
from stages.compress.passes import apply_pass, recover
from stages.compress.progress import PassProgress
from stages.compress.stage import CompressConfig, Int8Pass, PrunePass
from tests.infra.test_token_stream import tokens_artifact


class Context:
    """What a pass needs of the stage's context."""

    class listener:
        """Hears nothing."""

        @staticmethod
        def advanced(*_: object) -> None:
            """Ignore."""


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Transformer(TransformerConfig(layers=2, width=16, heads=2, context_length=16, vocabulary_size=50))


@pytest.fixture
def tokens(tmp_path):
    documents = [[number % 7 + 1 for number in range(40)] + [0] for _ in range(20)]
    return tokens_artifact(str(tmp_path / "store"), documents)


def test_pruning_reaches_its_sparsity_exactly_and_recovery_keeps_the_zeros(network, tokens):
    one = PrunePass(sparsity=0.75, rounds=2, recovery_tokens=1_024, batch_tokens=128, learning_rate=1e-2)
    before = {name: weight.clone() for name, weight in linear_weights(network).items()}
    pruned = apply_pass(one, network, tokens, 0, Context)
    for name, weight in linear_weights(pruned).items():
        assert (weight == 0).float().mean() == pytest.approx(0.75, abs=1 / weight.numel())
        assert not torch.equal(weight[weight != 0], before[name][weight != 0]), (
            "recovery trains the weights that are left"
        )


def test_recovery_lowers_the_loss(network, tokens):
    sampler = WindowSampler(TokenStream(tokens, "train"), 16, seed=0)
    rows = torch.from_numpy(sampler.rows(0, 8))

    def loss() -> float:
        with torch.no_grad():
            return float(network(rows[:, :-1], targets=rows[:, 1:]).total)

    before = loss()
    recover(network, {name: weight != 0 for name, weight in linear_weights(network).items()}, sampler,
            PrunePass(learning_rate=1e-2), steps=10, first_row=0, rows=8)  # fmt: skip
    assert loss() < before


def test_int8_comes_back_smaller_and_nearly_as_good(network, tokens):
    held_out = HeldOutText.read(tokens, 10)
    quantized = apply_pass(Int8Pass(), network, tokens, 0, Context)
    assert isinstance(quantized.head, Int8Linear)
    before, after = measure("teacher", None, network, held_out), measure("int8", Int8Pass(), quantized, held_out)
    assert after["bytes"] < 0.5 * before["bytes"]
    assert after["bits_per_byte"] == pytest.approx(before["bits_per_byte"], rel=0.01)
    assert after["settings"]["kind"] == "int8"


def test_nonzero_parameters_count_a_tied_table_once(network):
    assert nonzero_parameters(network) <= parameters(network.config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1)
    assert nonzero_parameters(network) == parameters(network.config)
    network.embedding.weight.data[3] = 0
    assert nonzero_parameters(network) == parameters(network.config) - 16


def test_a_finished_pass_is_taken_up_and_half_a_pass_is_not(network):
    progress = PassProgress(Folder("memory://pass-progress"))
    assert progress.finished(1) is None
    progress.save(1, network, {"name": "prune"})
    found, row = progress.finished(1)
    assert model_to_files(found) == model_to_files(network)
    assert row == {"name": "prune"}
    Folder("memory://pass-progress").remove("pass-1/measurement.json")
    assert progress.finished(1) is None


def test_held_out_text_is_whole_documents(tokens):
    assert len(HeldOutText.read(tokens, 1).tokens) == 1
    assert len(HeldOutText.read(tokens, 3).tokens) == 3
    assert all(0 not in ids for ids in HeldOutText.read(tokens, 100).tokens), "the end-of-text token is not scored"


def test_an_order_that_cannot_work_is_refused_with_the_one_that_does():
    with pytest.raises(ValidationError, match=r"'prune' cannot follow 'int8'.*prune, then int8 last"):
        CompressConfig(passes=(Int8Pass(), PrunePass()))
