import pytest
import torch
import torch.nn.functional as F
from torch import nn

from data_schemas.errors import ConfigError
from modeling.compression.integers import quantize_int8
from modeling.distillation.layer_matching import Matching, relation_divergence
from modeling.distillation.loss import Comparison, distillation_loss, head_loss, loss_from
from modeling.distillation.teacher_predictions import TeacherHead, TopPredictions
from modeling.loss.cross_entropy import next_token_loss
from modeling.loss.logit_tiles import Tiling
from tests.modeling.networks import SMALL, random_tokens, small_network

BANDS = {"embedding_bands": [{"entries": 20, "width": 32}, {"width": 8}]}


def plain_loss(student, teacher, tokens, weight, temperature, kind, z_loss):
    """By the definitions, with all logits of all tokens."""
    targets = tokens[:, 1:]
    with torch.no_grad():
        p = (teacher(tokens[:, :-1]) / temperature).log_softmax(-1)
    logits = student(tokens[:, :-1])
    q = (logits / temperature).log_softmax(-1)
    forward = F.kl_div(q, p, reduction="none", log_target=True).sum(-1).mean()
    reverse = F.kl_div(p, q, reduction="none", log_target=True).sum(-1).mean()
    divergence = {"forward": forward, "reverse": reverse, "mixed": (forward + reverse) / 2}[kind]
    cross_entropy = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    z = z_loss * logits.logsumexp(-1).square().mean()
    return (1 - weight) * cross_entropy + z + weight * temperature**2 * divergence, cross_entropy


def gradients(loss, model):
    return torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("kind", ["forward", "reverse", "mixed"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("changes", [{}, BANDS | {"tied_embeddings": False}])
def test_loss_and_gradients_are_those_of_the_definition(kind, temperature, changes):
    teacher, student = small_network(1, layers=3).double(), small_network(2, **changes).double()
    tokens = random_tokens(3, 25)
    loss = distillation_loss(teacher, 0.7, temperature, kind)(student, tokens, 1e-3)
    total, cross_entropy = plain_loss(student, teacher, tokens, 0.7, temperature, kind, 1e-3)
    torch.testing.assert_close(loss.total, total)
    torch.testing.assert_close(loss.cross_entropy, cross_entropy.detach())
    for ours, theirs in zip(gradients(loss.total, student), gradients(total, student), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_tiles_do_not_show_and_any_head_gives_the_same():
    torch.manual_seed(0)
    hidden, targets = torch.randn(2, 9, 6).double().requires_grad_(), torch.randint(11, (2, 9))
    head, teacher = nn.Linear(6, 11, bias=False).double(), nn.Linear(4, 11).double()
    predictions = TeacherHead(teacher, torch.randn(18, 4).double(), 1.5)
    results = []
    for any_head, tiling in ((head, Tiling()), (head, Tiling(rows=4)), (nn.Sequential(head), Tiling(rows=5))):
        loss = head_loss(any_head, hidden, predictions, targets, Comparison(0.6, 1.5, "mixed"), 0.01, tiling)
        results.append([loss.cross_entropy, loss.total, *torch.autograd.grad(loss.total, [hidden, head.weight])])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


def test_golden_numbers_by_hand():
    """Teacher (1/2, 1/4, 1/4), student (1/4, 1/4, 1/2): forward KL = ln 2 / 4, and reverse too; target 0: ln 4."""
    hidden = torch.tensor([[[1.0]]], requires_grad=True)
    head, teacher = nn.Linear(1, 3, bias=False), nn.Linear(1, 3, bias=False)
    head.weight.data[:, 0] = torch.tensor([0.25, 0.25, 0.5]).log()
    teacher.weight.data[:, 0] = torch.tensor([0.5, 0.25, 0.25]).log()
    predictions = TeacherHead(teacher, torch.ones(1, 1), 1.0)
    for kind in ("forward", "reverse"):
        loss = head_loss(head, hidden, predictions, torch.tensor([[0]]), Comparison(0.5, 1.0, kind))
        assert float(loss.total) == pytest.approx(0.5 * 0.25 * 0.693147 + 0.5 * 1.386294, abs=1e-6)
    (gradient,) = torch.autograd.grad(
        head_loss(head, hidden, predictions, torch.tensor([[0]]), Comparison(1.0, 1.0)).total, [head.weight]
    )
    torch.testing.assert_close(gradient[:, 0], torch.tensor([-0.25, 0.0, 0.25]))


def test_a_student_that_predicts_as_its_teacher_has_no_divergence_and_no_gradient():
    model = small_network().double()
    for kind in ("forward", "reverse", "mixed"):
        loss = distillation_loss(small_network().double(), 1.0, 2.0, kind)(model, random_tokens(2, 25), 0.0)
        assert abs(float(loss.total)) < 1e-12
        assert max(float(gradient.abs().max()) for gradient in gradients(loss.total, model)) < 1e-12


def test_without_the_teacher_it_is_the_loss_of_the_text():
    model = small_network(experts={"experts": 4, "active": 2}).train()
    tokens = random_tokens(2, 25)
    loss, text = distillation_loss(small_network(1), 0.0)(model, tokens, 1e-3), next_token_loss(model, tokens, 1e-3)
    torch.testing.assert_close(loss.total, text.total)
    torch.testing.assert_close(loss.cross_entropy, text.cross_entropy)
    assert text.total > text.cross_entropy + 1e-3, "what experts say of their routing counts in both"


def test_an_int8_teacher_and_bfloat16_products():
    student, tokens = small_network(2), random_tokens(2, 25)
    exact = distillation_loss(small_network(1))(student, tokens, 0.0)
    near = distillation_loss(quantize_int8(small_network(1)))(student, tokens, 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        short = distillation_loss(small_network(1))(student, tokens, 0.0)
    for other in (near, short):
        assert other.total.dtype == torch.float32
        assert float(other.total.detach()) == pytest.approx(float(exact.total.detach()), rel=0.05)
    short.total.backward()
    assert student.head.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("kind", ["forward", "reverse"])
def test_top_predictions_are_the_divergence_of_k_outcomes_and_the_tail(kind):
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 5, 12, generator=generator).double().log_softmax(-1)
    for k in (3, 12):
        top = teacher.topk(k)
        tail = (1 - top.values.exp().sum(1)).clamp_min(0)
        tail = torch.full_like(tail, -torch.inf) if k == 12 else tail.log()
        predictions = TopPredictions(top.indices, top.values, tail)
        logits = student.clone().requires_grad_()
        loss = head_loss(nn.Sequential(nn.Identity()), logits[None], predictions, top.indices[None, :, 0],
                         Comparison(1.0, 1.0, kind))  # fmt: skip
        q = logits.log_softmax(-1)
        if k == 12:
            p = teacher
        else:
            rest = torch.ones_like(q).scatter(1, top.indices, 0).bool()
            p = torch.cat([top.values, tail[:, None]], 1)
            q = torch.cat([q.gather(1, top.indices), (q.exp() * rest).sum(1, keepdim=True).log()], 1)
        expected = (p.exp() * (p - q)).sum(-1).mean() if kind == "forward" else (q.exp() * (q - p)).sum(-1).mean()
        torch.testing.assert_close(loss.total, expected)
        torch.testing.assert_close(*(torch.autograd.grad(total, logits)[0] for total in (loss.total, expected)))


def test_streams_match_where_the_student_is_the_teacher_and_relations_too():
    teacher, student = small_network(1), small_network(1)
    matching = Matching(teacher, (0, 1), torch.eye(32), hidden_weight=2.0, relation_weight=3.0)
    loss_of = distillation_loss(teacher, 1.0, matching=matching)
    assert abs(float(loss_of(student, random_tokens(2, 25), 0.0).total)) < 1e-5
    assert not teacher.layers[0]._forward_hooks
    assert not student.layers[0]._forward_hooks
    with torch.no_grad():
        student.layers[0].feed_forward.down.bias += 1.0
    alone = distillation_loss(teacher, 1.0)(student, random_tokens(2, 25), 0.0).total
    loss = loss_of(student, random_tokens(2, 25), 0.0).total
    assert loss > alone + 0.1
    loss.backward()
    assert student.layers[1].attention.query_key_value.weight.grad.isfinite().all()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_relations_look_back_only_and_do_not_depend_on_the_number_of_heads():
    torch.manual_seed(0)
    teacher, student = torch.randn(1, 6, 3 * 16), torch.randn(1, 6, 3 * 8)
    loss = relation_divergence(teacher, student, 4, 2)
    assert loss > 0
    changed = teacher.clone()
    changed[:, -1] += 1
    torch.testing.assert_close(
        relation_divergence(changed[:, :5], student[:, :5], 4, 2),
        relation_divergence(teacher[:, :5], student[:, :5], 4, 2),
    )
    queries = [
        projected[0].unflatten(-1, (heads, 3, -1))[:, :, 0].reshape(6, 2, -1)[:, 0]
        for projected, heads in ((teacher, 4), (student, 2))
    ]
    theirs, ours = ((vectors[:3] @ vectors[2]) / vectors.shape[-1] ** 0.5 for vectors in queries)
    third = F.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), reduction="sum", log_target=True)
    parts = [relation_divergence(teacher[:, :n], student[:, :n], 4, 2) * n * 6 for n in (2, 3)]
    assert float(parts[1] - parts[0]) > float(third) > 0, "one of the three, one of two relation heads"


def test_relations_of_window_attention_are_refused():
    window = small_network(attention=({"kind": "window", "window": 4},))
    with pytest.raises(ConfigError, match=r"is of kind 'window'.*full attention.*relation_weight to 0"):
        Matching(window, (0, 1), torch.eye(32), relation_weight=1.0).check(SMALL)
    Matching(window, (0, 1), torch.eye(32), hidden_weight=1.0).check(SMALL)


def test_stored_predictions_can_stand_in_for_the_teacher():
    teacher, student, tokens = small_network(1), small_network(2), random_tokens(2, 25)
    logarithms = teacher(tokens[:, :-1]).detach().log_softmax(-1).flatten(0, 1)
    top = logarithms.topk(61)
    stored = TopPredictions(top.indices, top.values, torch.full((48,), -torch.inf))
    torch.testing.assert_close(
        loss_from(lambda _: stored, Comparison())(student, tokens, 0.0).total,
        distillation_loss(teacher)(student, tokens, 0.0).total,
    )
