import pytest
import torch
from pydantic import ValidationError

from data_schemas.errors import ConfigError
from modeling.attention.linear_attention import LinearAttention
from modeling.attention.lsh_attention import LshAttention
from modeling.attention.multi_head import Attention
from modeling.compression.integers import quantize_int8
from modeling.compression.low_rank import factorize
from modeling.decoding.generation import generate
from modeling.export.model_files import CONFIG, WEIGHTS, model_from_files, model_to_files
from stages.compress.passes.attention import LinearAttentionPass, LshAttentionPass
from stages.compress.recovery_config import Recovery
from tests.stages.compress.passes.test_sparse_activations import context, network  # noqa: F401 - a fixture

RECOVERY = Recovery(tokens=512, batch_tokens=128, learning_rate=1e-3, distill=False)
NONE = Recovery(tokens=0)
WINDOW = {"kind": "window", "window": 8}


@pytest.mark.parametrize("kind", ["linear", "lsh"])
def test_chosen_layers_are_converted_trained_and_saved(context, kind):  # noqa: F811
    if kind == "linear":
        settings, kind_of_layer = LinearAttentionPass(layers=(1,), transfer_steps=3, recovery=RECOVERY), LinearAttention
    else:
        settings, kind_of_layer = LshAttentionPass(layers=(1,), bucket_size=4, recovery=RECOVERY), LshAttention
    before = network().state_dict()
    model = settings.apply(network(), context)
    assert type(model.layers[0].attention) is Attention and type(model.layers[1].attention) is kind_of_layer
    assert not torch.equal(model.state_dict()["head.weight"], before["head.weight"]), "recovery trains"
    files = model_to_files(model)
    loaded = model_from_files(files[CONFIG], files[WEIGHTS])
    tokens = context.calibration(16, 2)
    assert torch.equal(loaded(tokens), model(tokens))
    assert len(generate(loaded, [1, 2, 3], 30, temperature=0, top_k=0, seed=0)) == 30


def test_transfer_alone_keeps_the_network_nearer_than_no_transfer(context):  # noqa: F811
    def sharp():
        model = network()
        for layer in model.layers:
            torch.nn.init.normal_(layer.attention.query_key_value.weight, std=1.0)
        return model

    tokens = context.calibration(16, 8)
    exact = sharp().hidden_states(tokens)
    errors = []
    for steps in (0, 60):
        converted = LinearAttentionPass(transfer_steps=steps, recovery=NONE).apply(sharp(), context)
        errors.append(float((converted.hidden_states(tokens) - exact).norm() / exact.norm()))
    assert errors[1] < 0.7 * errors[0]


def test_mixed_kinds_convert_where_they_can(context):  # noqa: F811
    mixed = {"attention": [WINDOW, {"kind": "full"}]}
    model = LinearAttentionPass(transfer_steps=0, recovery=NONE).apply(network(**mixed), context)
    assert [type(layer.attention) for layer in model.layers] == [Attention, LinearAttention]
    with pytest.raises(ConfigError, match=r"got layers \[0\].*kind 'full'.*in layers \[1\] of the 2"):
        LshAttentionPass(layers=(0, 1)).apply(network(**mixed), context)
    with pytest.raises(ConfigError, match=r"got no layer to convert.*in layers none"):
        LinearAttentionPass().apply(network(attention=WINDOW), context)
    with pytest.raises(ConfigError, match=r"got layers \[1\].*in layers none"):
        LinearAttentionPass(layers=(1,)).apply(LshAttentionPass(recovery=NONE).apply(network(), context), context)


def test_orders_that_cannot_work_are_refused(context):  # noqa: F811
    for settings in (LinearAttentionPass(), LshAttentionPass()):
        with pytest.raises(ConfigError, match=rf"'{settings.kind}' found \S+ in int8.*put '{settings.kind}' before"):
            settings.apply(quantize_int8(network()), context)
    smaller = factorize(network(), 2.0, None, whitened=False)
    with pytest.raises(ConfigError, match="before the pass that factorizes"):
        LshAttentionPass().apply(smaller, context)
    model = LinearAttentionPass(transfer_steps=2, recovery=NONE).apply(smaller, context)
    assert model(context.calibration(16, 2)).isfinite().all(), "linear attention takes the factors as they are"


def test_layers_are_listed_once():
    with pytest.raises(ValidationError, match="each once"):
        LinearAttentionPass(layers=(1, 1))
