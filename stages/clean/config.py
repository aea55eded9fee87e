"""The config section `clean`; apart from the stage's code so that a plan need not import that.

- `CleanConfig`: the whole section; its rules are in `rules_config.py`
- `BoilerplateConfig`, `PersonalDataConfig`, `QualityClassifierConfig`, `PerplexityConfig`: its steps
"""

from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from data_schemas.config import FrozenConfig, StageConfig
from stages.clean.rules_config import GenreChanges, LineRules, Rules

Kind = Literal["key", "email", "iban", "card", "phone", "ip"]
KINDS: tuple[Kind, ...] = ("key", "email", "iban", "card", "phone", "ip")
NAMES = "genres or sources, as ingest names them"


class BoilerplateConfig(FrozenConfig):
    """Which lines of a site or book are taken out of all its documents."""

    min_documents: int = Field(5, ge=2, description="documents of the group that hold the line, at least")
    min_share: float = Field(0.3, gt=0, le=1, description="share of the group's documents that hold it, at least")


class PersonalDataConfig(FrozenConfig):
    """Which kinds of personal data give way to placeholders such as `<EMAIL>`."""

    kinds: tuple[Kind, ...] = Field(
        KINDS, description="what is replaced: keys and tokens, e-mail addresses, IBANs, payment cards, phones, IPs"
    )
    region: str = Field(
        "US", min_length=2, max_length=2, description="ISO 3166 code: phone numbers without a country code are of here"
    )


class QualityClassifierConfig(FrozenConfig):
    """What the classifier tells apart."""

    reference: tuple[str, ...] = Field(min_length=1, description=f"what good text is like: {NAMES}")
    web: tuple[str, ...] = Field(min_length=1, description=f"what common text is like: {NAMES}")
    documents_per_class: int = Field(5_000, ge=20, description="documents to learn from, of each of the two, at most")
    hash_bits: int = Field(18, ge=10, le=24, description="two to this many weights, which hashed words share")

    @model_validator(mode="after")
    def _tell_two_classes_apart(self) -> Self:
        if both := set(self.reference) & set(self.web):
            raise ValueError(f"{', '.join(sorted(both))} is both reference and web")
        return self


class PerplexityConfig(FrozenConfig):
    """What the language model learns from, and where its buckets end."""

    reference: tuple[str, ...] = Field(min_length=1, description=f"what good text is like: {NAMES}")
    documents: int = Field(
        2_000, ge=20, description="documents to learn from, and others to place the buckets by, at most"
    )
    percentiles: tuple[float, float] = Field(
        (30, 60), description="where head and middle end: per cent of the documents, as in CCNet"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not 0 < self.percentiles[0] < self.percentiles[1] < 100:
            raise ValueError(f"percentiles must rise between 0 and 100, not {list(self.percentiles)}")
        return self


class CleanConfig(StageConfig):
    """What counts as good text, and what is repaired."""

    unwrapped_genres: tuple[str, ...] = Field(
        ("books",),
        description="genres whose hard-wrapped paragraphs are joined; text that is not wrapped stays as it is",
    )
    boilerplate: BoilerplateConfig | None = Field(
        None,
        description="takes out lines that many documents of a site or book share; off where left out, as it reads all "
        "documents once more",
    )
    lines: LineRules = Field(default_factory=lambda: LineRules(), description="rules that take out lines and marks")
    personal_data: PersonalDataConfig | None = Field(
        PersonalDataConfig(), description="what is replaced by placeholders; null leaves personal data in"
    )
    rules: Rules = Field(default_factory=lambda: Rules(), description="rules that drop or tag documents")
    languages: tuple[str, ...] = Field(
        (), description="ISO 639-1 codes that the rule `language` accepts; every language where empty"
    )
    quality_classifier: QualityClassifierConfig | None = Field(
        None,
        description="a linear model, trained on a sample of the corpus, whose probability of being like the reference "
        "becomes the column quality; off where left out",
    )
    perplexity: PerplexityConfig | None = Field(
        None,
        description="a trigram model of a sample of the reference text; documents are tagged perplexity_head, "
        "perplexity_middle or perplexity_tail; off where left out",
    )
    by_genre: dict[str, GenreChanges] = Field(
        {}, description="changes to rules and lines for the documents of a genre, by genre"
    )

    @model_validator(mode="after")
    def _check_the_genres(self) -> Self:
        for genre in self.by_genre:
            try:
                self.rules_of(genre)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                raise ValueError(f"by_genre.{genre}, {where}: {first['msg'].removeprefix('Value error, ')}") from None
        return self

    @model_validator(mode="after")
    def _check_the_models(self) -> Self:
        models = {
            "quality": ("quality_classifier", self.quality_classifier),
            "perplexity": ("perplexity", self.perplexity),
        }
        for rule, (field, model) in models.items():
            places = {"rules": self.rules} | {
                f"by_genre.{genre}.rules": self.rules_of(genre)[1] for genre in self.by_genre
            }
            for place, rules in places.items():
                if model is None and getattr(rules, rule).action != "off":
                    raise ValueError(f"{place}.{rule} needs a model: set clean.{field}, or leave the rule off")
        return self

    def rules_of(self, genre: str) -> tuple[LineRules, Rules]:
        """The rules for the documents of a genre."""
        changes = self.by_genre.get(genre)
        if changes is None:
            return self.lines, self.rules
        return self.lines.changed(changes.lines), self.rules.changed(changes.rules)
