"""Which smaller networks can be cut from a network: sizes, heads and layers that fit. Imports no torch.

- `student_config`: the teacher's config with other sizes
- `check_student`: refuses what cannot be cut, and names what can
- `evenly_spread`, `most_influential`: which of the teacher's layers a student keeps
"""

from collections.abc import Callable, Sequence

from pydantic import ValidationError

from data_schemas.errors import ConfigError
from modeling.experts.config import ExpertsConfig
from modeling.transformer_config import EmbeddingBand, TransformerConfig

CUT_FIELDS = frozenset({"layers", "width", "heads", "feed_forward_width", "attention", "experts", "embedding_bands"})
"""Where student and teacher may differ, besides a shorter context, the initial weights and what is tuned at a base."""
FREE_FIELDS = frozenset({"context_length", "initializer_std", "base_width", "base_layers"})


def student_config(
    teacher: TransformerConfig,
    layers: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    feed_forward_width: int | None = None,
) -> TransformerConfig:
    """The teacher's config with other sizes; what is left out follows from the others.

    Args:
        teacher: whose vocabulary, attention, experts and embedding stay.
        layers: the teacher's where left out.
        width: the teacher's where left out. Embedding bands of the teacher's width take it as well.
        heads: as many as keep the width of a head where left out, or the nearest to it that can be cut.
        feed_forward_width: in the teacher's ratio to `width` where left out; experts go by the same ratio.

    Raises:
        ConfigError: where no such student can be cut.
    """
    layers, width = layers or teacher.layers, width or teacher.width
    if width > teacher.width:
        raise _larger("width", width, teacher.width)
    fitting = fitting_heads(teacher, width)
    if not fitting:
        raise _no_heads(teacher, width, heads)
    neurons = feed_forward_width or max(2, round(teacher.feed_forward_width * width / teacher.width))
    bands = [_cut_band(band, teacher.width, width) for band in teacher.embedding_bands]
    sizes = {
        "layers": layers,
        "width": width,
        "heads": heads or fitting[0],
        "feed_forward_width": neurons,
        "experts": _cut_experts(teacher.experts, neurons / teacher.feed_forward_width),
        "embedding_bands": tuple(bands),
    }
    fields = {name: getattr(teacher, name) for name in TransformerConfig.model_fields}
    try:
        student = TransformerConfig(**(fields | sizes))
    except ValidationError as error:
        problems = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        raise ConfigError(
            f"there is no network of {layers} layers and width {width} like the teacher: {problems}"
        ) from None
    check_student(teacher, student)
    return student


def check_student(teacher: TransformerConfig, student: TransformerConfig) -> None:
    """Refuse a student that cannot be cut from the teacher.

    Raises:
        ConfigError: naming what differs or is larger, and what can be cut.
    """
    for name in TransformerConfig.model_fields:
        ours, theirs = getattr(student, name), getattr(teacher, name)
        if name not in CUT_FIELDS | FREE_FIELDS and ours != theirs:
            raise ConfigError(f"the student's {name} is {ours}, the teacher's {theirs}; only the teacher's can be cut")
    for name in ("layers", "width", "heads", "feed_forward_width", "context_length"):
        if getattr(student, name) > getattr(teacher, name):
            raise _larger(name, getattr(student, name), getattr(teacher, name))
    if student.heads not in fitting_heads(teacher, student.width):
        raise _no_heads(teacher, student.width, student.heads)
    _check_experts(teacher.experts, student.experts)
    _check_bands(teacher, student)
    evenly_spread(teacher, student)


def fitting_heads(teacher: TransformerConfig, width: int) -> list[int]:
    """Numbers of heads that a student of this width can have, the one nearest to the teacher's head width first.

    A head keeps its width, or a divisor of it: pair i of a head of w numbers turns at the speed of pair i r of a head
    of r w numbers, so that every r-th rotary pair finds its own speed again, and no other cut has that.
    """
    return [
        heads
        for heads in range(1, teacher.heads + 1)
        if width % (2 * heads) == 0 and teacher.head_width % (width // heads) == 0
    ]


def evenly_spread(teacher: TransformerConfig, student: TransformerConfig) -> tuple[int, ...]:
    """Layers of the teacher, ascending: the first, the last and even steps between, as far as their kinds allow.

    Raises:
        ConfigError: where the teacher's layers do not hold the student's kinds in order.
    """
    step = (teacher.layers - 1) / max(student.layers - 1, 1)
    return _best_layers(teacher, student, lambda place, layer: -((layer - place * step) ** 2))


def most_influential(
    teacher: TransformerConfig, student: TransformerConfig, influence: Sequence[float]
) -> tuple[int, ...]:
    """Layers of the teacher, ascending, with the most influence together (ShortGPT, Men et al. 2024, 2403.03853).

    Args:
        teacher: whose layers they are.
        student: the kinds of whose layers have to be met.
        influence: of each of the teacher's layers.
    """
    return _best_layers(teacher, student, lambda _, layer: influence[layer])


def _best_layers(
    teacher: TransformerConfig, student: TransformerConfig, value: Callable[[int, int], float]
) -> tuple[int, ...]:
    """The ascending choice of like layers with the greatest sum of value(place in the student, teacher's layer)."""
    best: dict[int, tuple[float, tuple[int, ...]]] = {-1: (0.0, ())}
    for place in range(student.layers):
        further: dict[int, tuple[float, tuple[int, ...]]] = {}
        for layer in range(teacher.layers):
            before = [choice for last, choice in best.items() if last < layer]
            if before and _alike(teacher, layer, student, place):
                total, chosen = max(before, key=lambda choice: choice[0])
                further[layer] = (total + value(place, layer), (*chosen, layer))
        best = further
    if not best:
        raise ConfigError(
            f"the teacher's {teacher.layers} layers do not hold, in order, the kinds of attention and feed-forward "
            f"that a student of {student.layers} layers has; layers can be {teacher.layers}, or the student's "
            "attention and experts have to follow the layers that it keeps"
        )
    return max(best.values(), key=lambda choice: choice[0])[1]


def _alike(teacher: TransformerConfig, layer: int, student: TransformerConfig, place: int) -> bool:
    same_experts = (teacher.layer_experts(layer) is None) == (student.layer_experts(place) is None)
    return same_experts and teacher.layer_attention(layer) == student.layer_attention(place)


def _cut_band(band: EmbeddingBand, teacher_width: int, width: int) -> EmbeddingBand:
    return band.model_copy(update={"width": width}) if band.width == teacher_width else band


def _cut_experts(experts: ExpertsConfig | None, ratio: float) -> ExpertsConfig | None:
    if experts is None or ratio == 1:
        return experts
    widths = {
        "expert_width": experts.expert_width and max(2, round(experts.expert_width * ratio)),
        "shared_width": experts.shared_width and max(2, round(experts.shared_width * ratio)),
    }
    return experts.model_copy(update=widths)


def _check_experts(teacher: ExpertsConfig | None, student: ExpertsConfig | None) -> None:
    def routing(experts: ExpertsConfig | None) -> ExpertsConfig | None:
        return experts and experts.model_copy(
            update={"expert_width": None, "shared_width": min(experts.shared_width, 1), "every": 1}
        )

    if routing(teacher) != routing(student):
        raise ConfigError(
            f"the student's experts are {student}, the teacher's {teacher}; only their widths and `every` can differ"
        )


def _check_bands(teacher: TransformerConfig, student: TransformerConfig) -> None:
    for (entries, width), (own_entries, own_width) in zip(teacher.bands, student.bands, strict=False):
        kept = own_width == width and (own_width == student.width) == (width == teacher.width)
        cut = width == teacher.width and own_width == student.width
        if entries != own_entries or not (kept or cut):
            raise ConfigError(
                f"the student's embedding bands are {student.bands}, the teacher's {teacher.bands} (entries, width): "
                "bands narrower than the teacher keep their width, and the student's width must be another; those as "
                "wide as the teacher become as wide as the student"
            )
    if len(teacher.bands) != len(student.bands):
        raise ConfigError(
            f"the student has {len(student.bands)} embedding bands; it needs the teacher's {len(teacher.bands)}"
        )


def _larger(name: str, ours: int, theirs: int) -> ConfigError:
    return ConfigError(f"the student's {name} is {ours}, the teacher's {theirs}; a student can have 1 to {theirs}")


def _no_heads(teacher: TransformerConfig, width: int, heads: int | None) -> ConfigError:
    found = f"width {width}" if heads is None else f"width {width} with {heads} heads"
    rule = (
        f"a head is cut to {_listed(_head_widths(teacher))} of the teacher's {teacher.head_width} numbers, whose "
        f"rotary positions stay right, and there are at most {teacher.heads} heads"
    )
    fitting = fitting_heads(teacher, width)
    if fitting:
        return ConfigError(f"a student of {found} cannot be cut: {rule}; at this width heads can be {_listed(fitting)}")
    widths = {heads * part for heads in range(1, teacher.heads + 1) for part in _head_widths(teacher)}
    nearest = sorted(sorted(widths, key=lambda one: abs(one - width))[:4])
    return ConfigError(
        f"a student of {found} cannot be cut: {rule}; the nearest widths that can are {_listed(nearest)}"
    )


def _head_widths(teacher: TransformerConfig) -> list[int]:
    return [part for part in range(2, teacher.head_width + 1, 2) if teacher.head_width % part == 0]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
