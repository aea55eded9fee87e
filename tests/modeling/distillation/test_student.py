import pytest
import torch

from data_schemas.errors import ConfigError
from modeling.compression.integers import quantize_int8
from modeling.distillation.student import query_key_value_rows, student_from
from modeling.distillation.student_activations import Moments
from modeling.distillation.student_config import evenly_spread, most_influential, student_config
from modeling.distillation.student_plan import plan_student
from modeling.export.model_files import model_from_files, model_to_files
from modeling.initialization import attention_scale
from modeling.rotary import rotate, rotation_at
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from tests.modeling.networks import SMALL, random_tokens, small_network

POOLED = {"kind": "pooled", "window": 4, "levels": [{"stride": 2}], "pooling": "learnt"}
EXPERTS = {"experts": 3, "active": 2, "expert_width": 20, "shared_width": 8}
BANDS = [{"entries": 20, "width": 32}, {"width": 6}]
KINDS = [
    {},
    {"tied_embeddings": False, "base_width": 16, "base_layers": 1},
    {"attention": ({"kind": "window", "window": 5}, POOLED), "separate_documents": True},
    {"experts": EXPERTS},
    {"embedding_bands": BANDS},
    {"embedding_bands": BANDS, "tied_embeddings": False},
]


def logits(model: Transformer) -> torch.Tensor:
    with torch.no_grad():
        return model(random_tokens(4, 20, seed=7))


@pytest.mark.parametrize("changes", KINDS)
def test_a_student_of_the_teachers_own_size_is_the_teacher_bit_for_bit(changes):
    teacher = small_network(**changes)
    student = student_from(teacher, student_config(teacher.config), random_tokens(4, 20))
    assert model_to_files(student) == model_to_files(teacher)
    assert all(parameter.requires_grad for parameter in student.parameters())
    with torch.no_grad():
        student.final_norm.weight.zero_()
    assert teacher.final_norm.weight.abs().sum() > 0, "nothing is shared"


@pytest.mark.parametrize("changes", KINDS)
@pytest.mark.parametrize("stream", ["importance", "pca"])
def test_every_kind_of_network_can_be_cut_and_comes_back_from_files(changes, stream):
    teacher = small_network(heads=4, **changes)
    config = student_config(teacher.config, width=16, heads=4, feed_forward_width=30)
    student = student_from(teacher, config, random_tokens(4, 20), stream, "influence")
    again = model_from_files(*model_to_files(student).values())
    assert torch.equal(logits(again), logits(student))
    assert logits(student).isfinite().all()


@pytest.mark.parametrize("changes", [{"tied_embeddings": False}, {"tied_embeddings": False, "experts": EXPERTS}])
def test_all_principal_components_give_the_teachers_logits_though_it_has_layer_norms(changes):
    teacher = small_network(**changes).double()
    student = student_from(teacher, teacher.config, random_tokens(16, 24), "pca")
    torch.testing.assert_close(logits(student), logits(teacher).float(), rtol=2e-4, atol=2e-4)


def test_what_does_nothing_goes_first_and_nothing_is_lost():
    """Channels, heads, neurons and a layer that are dead in the teacher: the student is as good without them."""
    teacher = small_network(layers=3, heads=4, tied_embeddings=True)
    dead = torch.arange(0, 32, 2)
    with torch.no_grad():
        first = teacher.layers[1]
        first.attention.output.weight.zero_()
        first.feed_forward.down.weight.zero_()
        first.attention.output.bias.zero_()
        first.feed_forward.down.bias.zero_()
        for layer in teacher.layers:
            layer.attention.output.weight[:, 8:24] = 0
            layer.feed_forward.down.weight[:, ::2] = 0
            layer.feed_forward.up.bias += 2
            layer.attention_norm.weight[dead] = layer.attention_norm.bias[dead] = 0
            layer.feed_forward_norm.weight[dead] = layer.feed_forward_norm.bias[dead] = 0
        teacher.final_norm.weight[dead] = teacher.final_norm.bias[dead] = 0
    config = student_config(teacher.config, layers=2, heads=2, width=16, feed_forward_width=24)
    plan = plan_student(teacher, config, random_tokens(16, 20), "importance", "influence")
    assert plan.layers == (0, 2)
    assert [heads.tolist() for heads in plan.heads] == [[0, 3], [0, 3]]
    assert all((neurons[""] % 2 == 1).all() for neurons in plan.neurons)
    assert plan.stream.matrix.nonzero()[:, 0].tolist() == list(range(1, 32, 2))
    slim = student_config(teacher.config, layers=2, feed_forward_width=24)
    torch.testing.assert_close(
        logits(student_from(teacher, slim, random_tokens(16, 20), layers="influence")),
        logits(teacher),
        rtol=1e-4,
        atol=1e-4,
    )


def test_neurons_that_others_predict_are_not_missed():
    teacher = small_network()
    with torch.no_grad():
        for layer in teacher.layers:
            layer.feed_forward.up.weight[24:] = 3 * layer.feed_forward.up.weight[:24]
            layer.feed_forward.up.bias[24:] = 3 * layer.feed_forward.up.bias[:24]
    student = student_from(teacher, student_config(teacher.config, feed_forward_width=24), random_tokens(32, 24))
    change = (logits(student) - logits(teacher)).square().mean() / logits(teacher).square().mean()
    assert change < 1e-3


def test_narrower_heads_keep_the_speeds_of_their_rotary_pairs():
    """Where the pairs that go carry nothing, scores and so logits stay as they are."""
    teacher = small_network(width=32, heads=1)
    pairs_of_16 = torch.arange(16)[torch.arange(16) % 2 == 1]
    gone = torch.cat([pairs_of_16, 16 + pairs_of_16])
    with torch.no_grad():
        for layer in teacher.layers:
            for part in (layer.attention.query_key_value.weight, layer.attention.query_key_value.bias):
                part[gone] = part[32 + gone] = 0
    config = student_config(teacher.config, width=16, heads=1)
    plan = plan_student(teacher, config, random_tokens(4, 20), "importance")
    hidden, scores = torch.randn(1, 12, 32), []
    linear = teacher.layers[0].attention.query_key_value
    rows, scale = query_key_value_rows(teacher.config, plan.config, plan.heads[0], plan.values[0])
    for config, matrix, bias in (
        (teacher.config, linear.weight, linear.bias),
        (plan.config, linear.weight[rows] * scale[:, None], linear.bias[rows] * scale),
    ):
        projected = (hidden @ matrix.T.float() + bias.float()).unflatten(-1, (1, 3, -1))
        turned = rotate(projected, rotation_at(torch.arange(12), config.head_width, config.rotary_base, projected))
        queries, keys, _ = turned[0, :, 0].unbind(1)
        scores.append(queries @ keys.T * attention_scale(config))
    torch.testing.assert_close(scores[1], scores[0])


def test_prediction_is_least_squares_with_its_prior_where_little_is_known():
    torch.manual_seed(0)
    inputs = torch.randn(5000, 3)
    matrix = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]])
    moments = Moments(5)
    for part in torch.cat([inputs @ matrix.T + torch.tensor([4.0, -2.0]), inputs + 1], 1).split(700):
        moments.add(part)
    prediction, offset = moments.prediction(torch.tensor([0, 1]), torch.tensor([2, 3, 4]), matrix.double())
    torch.testing.assert_close(prediction, matrix.double(), rtol=0, atol=2e-3)
    torch.testing.assert_close(offset, torch.tensor([3.0, -3.5]).double(), rtol=0, atol=1e-2)
    nothing, _ = Moments(5).prediction(torch.tensor([0, 1]), torch.tensor([2, 3, 4]), matrix.double())
    torch.testing.assert_close(nothing, matrix.double())


def test_a_student_is_much_better_than_random_weights():
    teacher = small_network(layers=4, heads=4)
    expected = logits(teacher).softmax(-1)
    config = student_config(teacher.config, layers=3, width=24)

    def divergence(model: Transformer) -> float:
        return float((expected * (expected.log() - logits(model).log_softmax(-1))).sum(-1).mean())

    torch.manual_seed(0)
    fresh = divergence(Transformer(config))
    for stream in ("importance", "pca"):
        assert divergence(student_from(teacher, config, random_tokens(32, 24), stream)) < 0.75 * fresh


def test_omitted_sizes_have_defaults():
    teacher = TransformerConfig(
        layers=4, width=64, heads=4, vocabulary_size=50, experts=EXPERTS, embedding_bands=[{"width": 64}]
    )
    student = student_config(teacher, width=32)
    assert (student.layers, student.heads, student.feed_forward_width, student.head_width) == (4, 2, 128, 16)
    assert (student.experts.expert_width, student.experts.shared_width, student.bands) == (10, 4, ((50, 32),))
    assert student_config(teacher, width=24).heads == 3, "the only possibility: head width 8 of 16"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"layers": 3}, r"layers is 3, the teacher's 2; accepted are 1 to 2"),
        ({"width": 34}, r"width is 34, the teacher's 32"),
        ({"feed_forward_width": 49}, r"feed_forward_width is 49, the teacher's 48"),
        ({"heads": 4}, r"heads is 4, the teacher's 2"),
        ({"heads": 1}, r"32 with 1 heads cannot be cut.*of width 16, can be cut to 2, 4, 8, 16.*heads can be 2"),
        ({"width": 20}, r"width 20 cannot be cut.*at most 2 heads; the nearest widths that can are 4, 8, 16, 32"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused_with_what_can(sizes, message):
    with pytest.raises(ConfigError, match=message):
        student_config(SMALL, **sizes)


def test_other_refusals():
    with pytest.raises(ConfigError, match=r"norm_epsilon is 0\.1, the teacher's 1e-05"):
        student_from(small_network(), SMALL.model_copy(update={"norm_epsilon": 0.1}), random_tokens(1, 8))
    with pytest.raises(ConfigError, match=r"replaced by int8_embedding in an earlier pass.*: distill first"):
        student_from(quantize_int8(small_network()), SMALL, random_tokens(1, 8))
    mixed = SMALL.model_dump() | {"attention": ({"kind": "window", "window": 5}, {"kind": "full"})}
    with pytest.raises(ConfigError, match="attention lists 2 kinds, whose number must divide the 1 layers"):
        student_config(TransformerConfig.model_validate(mixed), layers=1)
    with pytest.raises(ConfigError, match="bands narrower than the teacher keep their width"):
        student_config(
            TransformerConfig.model_validate(SMALL.model_dump() | {"embedding_bands": [{"width": 16}]}), width=16
        )


def test_layers_keep_their_order_and_kind():
    full, window = {"kind": "full"}, {"kind": "window", "window": 5}

    def config(layers, kinds):
        return TransformerConfig(layers=layers, width=8, heads=1, vocabulary_size=9, attention=kinds)

    assert evenly_spread(config(8, (full,)), config(3, (full,))) == (0, 3, 7)
    assert evenly_spread(config(8, (full, window)), config(4, (full, window))) == (0, 3, 4, 7)
    assert most_influential(config(4, (full,)), config(2, (full,)), [0.1, 0.5, 0.2, 0.4]) == (1, 3)
    with pytest.raises(ConfigError, match="do not contain, in order"):
        evenly_spread(config(2, (full, window)), config(2, (window,)))
