"""The config section `clean`; apart from the stage's code so that a plan need not import that.

- `CleanConfig`
"""

from typing import Self

from pydantic import Field, ValidationError, model_validator

from data_schemas.config import StageConfig
from stages.clean.boilerplate_config import BoilerplateConfig
from stages.clean.model_configs import PerplexityConfig, QualityClassifierConfig
from stages.clean.personal_data_config import PersonalDataConfig
from stages.clean.rules_config import GenreChanges, LineRules, Rules


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
