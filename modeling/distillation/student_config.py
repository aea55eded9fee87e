"""Configs of students that can be cut from a teacher: sizes, heads and layers. Imports no torch.

- `student_config`: the teacher's config with other sizes
- `check_student`: checks that a student can be cut, and names the sizes that can
- `evenly_spread`, `most_influential`: layers of the teacher that a student keeps
"""

from collections.abc import Callable, Sequence

from pydantic import ValidationError

from data_schemas.errors import ConfigError
from modeling.experts.config import ExpertsConfig
from modeling.transformer_config import EmbeddingBand, TransformerConfig

CUT_FIELDS = frozenset({"layers", "width", "heads", "feed_forward_width", "attention", "experts", "embedding_bands"})
"""Fields in which student and teacher may differ by cutting."""
FREE_FIELDS = frozenset({"context_length", "initializer_std", "base_width", "base_layers"})
"""Fields that may differ without cutting: a shorter context, initialization, the base sizes of tuned settings."""


def student_config(
    teacher: TransformerConfig,
    layers: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    feed_forward_width: int | None = None,
) -> TransformerConfig:
    """The teacher's config with other sizes.

    Args:
        teacher: config of the teacher; vocabulary, attention, experts and embedding are kept.
        layers: by default those of the teacher.
        width: by default that of the teacher. Embedding bands of the teacher's width get this width.
        heads: by default the number that keeps the head width, or comes nearest to it.
        feed_forward_width: by default in the teacher's ratio to `width`; experts are scaled by the same ratio.

    Raises:
        ConfigError: if no such student can be cut.
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
    """Check that a student can be cut from the teacher.

    Raises:
        ConfigError: if a field differs or is larger; names the values that can be cut.
    """
    for name in TransformerConfig.model_fields:
        value, required = getattr(student, name), getattr(teacher, name)
        if name not in CUT_FIELDS | FREE_FIELDS and value != required:
            raise ConfigError(
                f"the student's {name} is {value}, the teacher's {required}; accepted is only the teacher's"
            )
    for name in ("layers", "width", "heads", "feed_forward_width", "context_length"):
        if getattr(student, name) > getattr(teacher, name):
            raise _larger(name, getattr(student, name), getattr(teacher, name))
    if student.heads not in fitting_heads(teacher, student.width):
        raise _no_heads(teacher, student.width, student.heads)
    _check_experts(teacher.experts, student.experts)
    _check_bands(teacher, student)
    evenly_spread(teacher, student)


def fitting_heads(teacher: TransformerConfig, width: int) -> list[int]:
    """Numbers of heads that a student of this width can have, ordered from the teacher's head width on.

    A head keeps its width, or a divisor of it: pair i of a head of width w rotates at the speed of pair i r of a head
    of width r w, so that every r-th rotary pair keeps its speed; no other cut does.
    """
    return [
        heads
        for heads in range(1, teacher.heads + 1)
        if width % (2 * heads) == 0 and teacher.head_width % (width // heads) == 0
    ]


def evenly_spread(teacher: TransformerConfig, student: TransformerConfig) -> tuple[int, ...]:
    """Layers of the teacher, ascending: the first, the last and evenly spaced ones between, as far as kinds allow.

    Raises:
        ConfigError: if the teacher's layers do not contain the student's kinds in order.
    """
    step = (teacher.layers - 1) / max(student.layers - 1, 1)
    return _best_layers(teacher, student, lambda index, layer: -((layer - index * step) ** 2))


def most_influential(
    teacher: TransformerConfig, student: TransformerConfig, influence: Sequence[float]
) -> tuple[int, ...]:
    """Layers of the teacher, ascending, with the largest total influence (ShortGPT, Men et al. 2024, 2403.03853).

    Args:
        teacher: config of the teacher.
        student: config of the student, whose layers must have the same kinds.
        influence: influence of each of the teacher's layers.
    """
    return _best_layers(teacher, student, lambda _, layer: influence[layer])


def _best_layers(
    teacher: TransformerConfig, student: TransformerConfig, value: Callable[[int, int], float]
) -> tuple[int, ...]:
    """Ascending layers of equal kinds with the largest sum of value(student's layer, teacher's layer)."""
    best: dict[int, tuple[float, tuple[int, ...]]] = {-1: (0.0, ())}  # by the last layer
    for index in range(student.layers):
        extended: dict[int, tuple[float, tuple[int, ...]]] = {}
        for layer in range(teacher.layers):
            before = [choice for last, choice in best.items() if last < layer]
            if before and _same_kind(teacher, layer, student, index):
                total, layers = max(before, key=lambda choice: choice[0])
                extended[layer] = (total + value(index, layer), (*layers, layer))
        best = extended
    if not best:
        raise ConfigError(
            f"the teacher's {teacher.layers} layers do not contain, in order, the kinds of attention and feed-forward "
            f"of a student of {student.layers} layers; set layers to {teacher.layers}, or choose the student's "
            "attention and experts by the layers that it keeps"
        )
    return max(best.values(), key=lambda choice: choice[0])[1]


def _same_kind(teacher: TransformerConfig, layer: int, student: TransformerConfig, index: int) -> bool:
    same_experts = (teacher.layer_experts(layer) is None) == (student.layer_experts(index) is None)
    return same_experts and teacher.layer_attention(layer) == student.layer_attention(index)


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
            f"the student's experts are {student}; accepted are the teacher's, {teacher}, with other widths and `every`"
        )


def _check_bands(teacher: TransformerConfig, student: TransformerConfig) -> None:
    for (entries, width), (student_entries, student_width) in zip(teacher.bands, student.bands, strict=False):
        kept = student_width == width and (student_width == student.width) == (width == teacher.width)
        cut = width == teacher.width and student_width == student.width
        if entries != student_entries or not (kept or cut):
            raise ConfigError(
                f"the student's embedding bands are {student.bands}, the teacher's {teacher.bands} (entries, width): "
                "bands narrower than the teacher keep their width, which must differ from the student's width; bands "
                "of the teacher's width get the student's width"
            )
    if len(teacher.bands) != len(student.bands):
        raise ConfigError(
            f"the student has {len(student.bands)} embedding bands, the teacher has "
            f"{len(teacher.bands)}; the numbers must be equal"
        )


def _larger(name: str, value: int, limit: int) -> ConfigError:
    return ConfigError(f"the student's {name} is {value}, the teacher's {limit}; accepted are 1 to {limit}")


def _no_heads(teacher: TransformerConfig, width: int, heads: int | None) -> ConfigError:
    size = f"width {width}" if heads is None else f"width {width} with {heads} heads"
    rule = (
        f"a head of the teacher, of width {teacher.head_width}, can be cut to {_listed(_head_widths(teacher))}, which "
        f"keeps its rotary positions, and there are at most {teacher.heads} heads"
    )
    fitting = fitting_heads(teacher, width)
    if fitting:
        return ConfigError(f"a student of {size} cannot be cut: {rule}; at this width heads can be {_listed(fitting)}")
    widths = {heads * head_width for heads in range(1, teacher.heads + 1) for head_width in _head_widths(teacher)}
    nearest = sorted(sorted(widths, key=lambda candidate: abs(candidate - width))[:4])
    return ConfigError(f"a student of {size} cannot be cut: {rule}; the nearest widths that can are {_listed(nearest)}")


def _head_widths(teacher: TransformerConfig) -> list[int]:
    return [width for width in range(2, teacher.head_width + 1, 2) if teacher.head_width % width == 0]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
