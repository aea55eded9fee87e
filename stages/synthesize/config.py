"""The config section `synthesize`, in a module of its own so that `headrace plan` imports no compiled code.

- `SynthesizeConfig`: the whole section
- `GatesConfig`: what a synthetic text must be like to become a document
- `labels`: the names of a config's methods
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_schemas.config import FrozenConfig, StageConfig, runtime_field
from stages.common.benchmark_ngrams.config import NgramConfig
from stages.common.minhash_config import MinHashConfig
from stages.synthesize.methods_config import KINDS, DeletionConfig, MethodConfig, RepetitionConfig, SwapConfig

GateName = Literal[
    "too_near_parent",
    "too_far_from_parent",
    "changed_number",
    "changed_name",
    "clean_rules",
    "benchmark_item",
    "duplicate",
]
_NOISE: tuple[GateName, ...] = ("too_near_parent", "clean_rules", "duplicate")
EXEMPT_GATES: dict[str, tuple[GateName, ...]] = {
    "sentence_shuffling": ("too_near_parent",),
    "repetition": ("too_near_parent", "duplicate"),
    **dict.fromkeys(("keyboard", "casing", "word_dropout"), _NOISE),
    "punctuation": (*_NOISE, "changed_name"),
    **dict.fromkeys(("ocr", "span_masking", "infilling"), (*_NOISE, "changed_number", "changed_name")),
}
"""Kind of method -> gates that contradict what it does.

Noise is meant to be near its parent and to damage it, but leaves numbers and names as they are, with exceptions: OCR
errors write digits, masks are numbered and come between a number and its unit, and without marks it is unknown where
sentences begin.
"""
Share = Annotated[float, Field(ge=0, le=1)]


class GatesConfig(FrozenConfig):
    """Gates that every synthetic text passes before it becomes a document; null turns one off."""

    max_nearness: float | None = Field(
        0.8,
        gt=0,
        le=1,
        description="Jaccard similarity to the parent, of word 5-grams, from which on a text is waste: dedup's near "
        "duplicates (FineWeb, 2406.17557, has 0.75)",
    )
    min_overlap: float | None = Field(
        0.25,
        ge=0,
        le=1,
        description="Jaccard similarity to the parent, of distinct words, below which a text is nonsense: 99 of 100 "
        "pairs of unrelated documents are below it (docs/results/synthetic.md)",
    )
    max_changed_numbers: int | None = Field(
        0, ge=0, description="numbers with their unit or currency that only the parent or only the text has"
    )
    max_changed_names: float | None = Field(
        0.1,
        ge=0,
        le=1,
        description="share of the names (capitalized within a sentence) that only the parent or only the text has",
    )
    clean_rules: bool = Field(
        True, description="the rules of clean drop the text, with the settings that its parent was cleaned with"
    )
    benchmarks: NgramConfig | None = Field(
        None, description="refuses texts and parents with an n-gram of a benchmark item, in however many documents"
    )
    near: MinHashConfig | None = Field(
        default_factory=MinHashConfig,
        description="near duplicates of the corpus or of an earlier synthetic text are refused, by the share of equal "
        "signature values whatever `verify` says",
    )
    exempt: dict[str, tuple[GateName, ...]] = Field(
        default_factory=dict,
        description="kind of method -> gates that its texts need not pass, instead of those in EXEMPT_GATES",
    )

    def exempt_of(self, kind: str) -> frozenset[str]:
        """Gates that texts of a kind of method need not pass."""
        return frozenset(self.exempt.get(kind, EXEMPT_GATES.get(kind, ())))


class SynthesizeConfig(StageConfig):
    """Synthetic documents made of the training documents, by method and genre."""

    methods: tuple[MethodConfig, ...] = Field(
        (SwapConfig(kind="swap"), DeletionConfig(kind="deletion")),
        min_length=1,
        description="ways to make texts, each with its share of a genre's documents",
    )
    shares: dict[str, dict[str, Share]] = Field(
        default_factory=dict,
        description="genre -> method -> share, instead of the method's own; a second method of a kind is KIND-2",
    )
    missing_engines: Literal["refuse", "skip"] = Field(
        "refuse", description="with a method whose engine is not installed: refuse the run, or leave the method out"
    )
    gates: GatesConfig = Field(default_factory=GatesConfig, description="conditions on the texts")
    rounds: int = Field(
        4, ge=1, description="times that further parents are taken where the gates refused texts, the first included"
    )
    tries: int = Field(3, ge=1, description="calls of an engine for a text that it may make later, in each round")
    max_parent_bytes: int = Field(200_000, gt=0, description="bytes of a document from which on it has no children")
    batch_documents: int = runtime_field(
        32, ge=1, description="texts that an engine receives at once; after a batch the work is committed"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of the choice of parents and of the methods")

    @model_validator(mode="after")
    def _check_exempt(self) -> "SynthesizeConfig":
        unknown = sorted(self.gates.exempt.keys() - set(KINDS))
        if unknown:
            raise ValueError(f"gates.exempt names {unknown[0]!r}; the kinds of methods are {', '.join(KINDS)}")
        return self

    @model_validator(mode="after")
    def _check_parents(self) -> "SynthesizeConfig":
        for method in self.methods:
            if isinstance(method, RepetitionConfig) and method.parents_of:
                kind, dash, number = method.parents_of.partition("-")
                if kind not in KINDS or (dash and not number.isdecimal()):
                    raise ValueError(
                        f"parents_of names {method.parents_of!r}; accepted is a kind of method, the second of a kind "
                        f"with -2 appended and so on; the kinds are {', '.join(KINDS)}"
                    )
        return self

    @model_validator(mode="after")
    def _check_names(self) -> "SynthesizeConfig":
        names = labels(self.methods)
        for genre, shares in self.shares.items():
            unknown = sorted(shares.keys() - set(names))
            if unknown:
                raise ValueError(f"shares.{genre} names {unknown[0]!r}; the methods are {', '.join(names)}")
        return self

    def shares_of(self, genre: str) -> list[Fraction]:
        """Share of each method in a genre, exact as written."""
        changed = self.shares.get(genre, {})
        pairs = zip(labels(self.methods), self.methods, strict=True)
        return [Fraction(str(changed.get(label, method.share))) for label, method in pairs]


def labels(methods: Sequence[MethodConfig]) -> list[str]:
    """Names of methods: their kinds, the second of a kind with `-2` appended and so on."""
    seen: dict[str, int] = {}
    names = []
    for method in methods:
        seen[method.kind] = seen.get(method.kind, 0) + 1
        names.append(method.kind if seen[method.kind] == 1 else f"{method.kind}-{seen[method.kind]}")
    return names
