"""The config section `clean`, in a module of its own so that `headrace plan` imports no compiled code.

- `CleanConfig`: the whole section; the rules are in `rules_config.py`
- `BoilerplateConfig`, `PersonalDataConfig`, `QualityClassifierConfig`, `PerplexityConfig`: its steps
"""

from typing import Self

from pydantic import Field, ValidationError, model_validator

from data_schemas.config import FrozenConfig, StageConfig
from data_schemas.language_codes import LanguageCode
from stages.clean.rules_config import GenreChanges, LineRules, Rules
from stages.common.personal_data.kinds import KINDS, Kind

NAMES = "genres or sources, as ingest names them"


class BoilerplateConfig(FrozenConfig):
    """When a line counts as boilerplate of a site or book and is removed from all its documents."""

    min_documents: int = Field(5, ge=2, description="minimum number of the group's documents that contain the line")
    min_share: float = Field(
        0.3, gt=0, le=1, description="minimum share of the group's documents that contain the line"
    )


class PersonalDataConfig(FrozenConfig):
    """Kinds of personal data to replace by placeholders such as `<EMAIL>`."""

    kinds: tuple[Kind, ...] = Field(
        KINDS,
        description="kinds to replace: keys and tokens, e-mail addresses, IBANs, payment cards, phone numbers, IPs",
    )
    region: str = Field(
        "US",
        min_length=2,
        max_length=2,
        description="ISO 3166 code of the country of phone numbers without a country code",
    )


class QualityClassifierConfig(FrozenConfig):
    """Training data and size of the quality classifier."""

    reference: tuple[str, ...] = Field(min_length=1, description=f"examples of good text: {NAMES}")
    web: tuple[str, ...] = Field(min_length=1, description=f"examples of average web text: {NAMES}")
    documents_per_class: int = Field(5_000, ge=20, description="maximum number of training documents per class")
    hash_bits: int = Field(18, ge=10, le=24, description="log2 of the number of weights, which hashed words share")

    @model_validator(mode="after")
    def _check_classes_are_disjoint(self) -> Self:
        if both := set(self.reference) & set(self.web):
            raise ValueError(f"{', '.join(sorted(both))} is in both reference and web; each may be in one of them only")
        return self


class PerplexityConfig(FrozenConfig):
    """Training data of the language model, and the boundaries of its buckets."""

    reference: tuple[str, ...] = Field(min_length=1, description=f"examples of good text: {NAMES}")
    documents: int = Field(
        2_000,
        ge=20,
        description="maximum number of training documents, and of other documents that set the bucket boundaries",
    )
    percentiles: tuple[float, float] = Field(
        (30, 60), description="ends of head and middle, in percent of the documents, as in CCNet"
    )

    @model_validator(mode="after")
    def _check_percentiles_rise(self) -> Self:
        if not 0 < self.percentiles[0] < self.percentiles[1] < 100:
            raise ValueError(f"percentiles are {list(self.percentiles)}; they must increase and be between 0 and 100")
        return self


class CleanConfig(StageConfig):
    """Repairs, rules and models of the clean stage."""

    unwrapped_genres: tuple[str, ...] = Field(
        ("books",),
        description="genres whose hard-wrapped paragraphs are joined; text that is not wrapped is unchanged",
    )
    boilerplate: BoilerplateConfig | None = Field(
        None,
        description="removes lines that many documents of a site or book share; off by default, as it reads all "
        "documents once more",
    )
    lines: LineRules = Field(default_factory=lambda: LineRules(), description="rules that remove lines and marks")
    personal_data: PersonalDataConfig | None = Field(
        PersonalDataConfig(), description="personal data to replace by placeholders; null keeps it"
    )
    rules: Rules = Field(default_factory=lambda: Rules(), description="rules that drop or tag documents")
    languages: tuple[LanguageCode, ...] = Field(
        (), description="ISO 639 codes that the rule `language` accepts; all languages if empty"
    )
    quality_classifier: QualityClassifierConfig | None = Field(
        None,
        description="linear classifier trained on a sample of the corpus; its probability that a document is "
        "reference-like is stored in the column quality; off by default",
    )
    perplexity: PerplexityConfig | None = Field(
        None,
        description="trigram model of a sample of the reference text; documents are tagged perplexity_head, "
        "perplexity_middle or perplexity_tail; off by default",
    )
    by_genre: dict[str, GenreChanges] = Field({}, description="genre -> changes to rules and lines for its documents")

    @model_validator(mode="after")
    def _check_genres(self) -> Self:
        for genre in self.by_genre:
            try:
                self.rules_of(genre)
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(map(str, first["loc"]))
                raise ValueError(f"by_genre.{genre}, {field}: {first['msg'].removeprefix('Value error, ')}") from None
        return self

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        models = {
            "quality": ("quality_classifier", self.quality_classifier),
            "perplexity": ("perplexity", self.perplexity),
        }
        for rule, (field, model) in models.items():
            tables = {"rules": self.rules} | {
                f"by_genre.{genre}.rules": self.rules_of(genre)[1] for genre in self.by_genre
            }
            for path, rules in tables.items():
                if model is None and getattr(rules, rule).action != "off":
                    raise ValueError(f"{path}.{rule} needs a model: set clean.{field}, or turn the rule off")
        return self

    def rules_of(self, genre: str) -> tuple[LineRules, Rules]:
        """Line and document rules for a genre."""
        changes = self.by_genre.get(genre)
        if changes is None:
            return self.lines, self.rules
        return self.lines.changed(changes.lines), self.rules.changed(changes.rules)
