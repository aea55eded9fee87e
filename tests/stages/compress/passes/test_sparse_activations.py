import pytest
import torch

from data_schemas.errors import ConfigError
from infra.progress import SilentListener
from infra.store.filesystem import Folder
from modeling.compression.activation_sparsity import measure_zeros
from modeling.compression.integers import quantize_int8
from modeling.compression.pruning import linear_weights, prune
from modeling.export.model_files import CONFIG, WEIGHTS, model_from_files, model_to_files
from modeling.layers.sparse_feed_forward import SparseFeedForward
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.compress.pass_context import PassContext
from stages.compress.passes.sparse_activations import SparseActivationsPass
from stages.compress.recovery_config import Recovery
from tests.stages.common.test_token_stream import tokens_artifact

RECOVERY = Recovery(tokens=2_560, batch_tokens=128, learning_rate=3e-3, distill=False)


def network(**changes):
    torch.manual_seed(0)
    shape = {"layers": 2, "width": 16, "heads": 2, "context_length": 16, "vocabulary_size": 50}
    return Transformer(TransformerConfig.model_validate(shape | changes)).eval()


@pytest.fixture
def context(tmp_path):
    documents = [[number % 7 + 1 for number in range(40)] + [0] for _ in range(20)]
    tokens = tokens_artifact(str(tmp_path / "store"), documents)
    return PassContext(tokens, network, 0, Folder(str(tmp_path / "work")), SilentListener(), "fp32")


@pytest.mark.parametrize("experts", [None, {"experts": 2}])
def test_the_target_is_reached_and_saved(context, experts):
    settings = SparseActivationsPass(target_zeros=0.8, recovery=RECOVERY, penalty=0.1)
    model = settings.apply(network(experts=experts), context)
    tokens = context.calibration(16, 32)
    shares = measure_zeros(model, tokens)
    assert sum(shares.values()) / len(shares) > 0.75
    files = model_to_files(model)
    loaded = model_from_files(files[CONFIG], files[WEIGHTS])
    assert measure_zeros(loaded, tokens) == shares
    assert all(isinstance(layer.feed_forward, SparseFeedForward) or experts for layer in loaded.layers)


def test_a_killed_pass_resumes_to_the_same_bits(context, monkeypatch, tmp_path):
    settings = SparseActivationsPass(target_zeros=0.8, recovery=RECOVERY)
    whole = model_to_files(settings.apply(network(), context))
    again = PassContext(context.tokens, network, 0, Folder(str(tmp_path / "killed")), SilentListener(), "fp32")
    monkeypatch.setattr("stages.compress.recovery.SAVE_EVERY_STEPS", 3)
    steps = []

    def killed(*_: object) -> None:
        steps.append(len(steps))
        if len(steps) in (3, 5):  # in the first part of the recovery, then in the second
            raise KeyboardInterrupt

    monkeypatch.setattr(again.listener, "advanced", killed, raising=False)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            settings.apply(network(), again)
    assert model_to_files(settings.apply(network(), again)) == whole


def test_one_threshold_for_all_and_no_training(context):
    settings = SparseActivationsPass(threshold=0.01, recovery=Recovery(tokens=0))
    model = settings.apply(network(), context)
    assert {layer.feed_forward.threshold for layer in model.layers} == {0.01}
    for name, tensor in network().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_weights_that_were_pruned_stay_zero(context):
    model = network()
    masks = prune(model, 0.5, "magnitude", None)
    SparseActivationsPass(recovery=RECOVERY).apply(model, context)
    for name, weight in linear_weights(model).items():
        assert not weight[~masks[name]].any() and weight[masks[name]].any()


def test_integers_are_refused_with_the_order_that_works(context):
    with pytest.raises(ConfigError, match=r"'sparse_activations' found \S+ in int8.*put 'sparse_activations' before"):
        SparseActivationsPass().apply(quantize_int8(network()), context)
