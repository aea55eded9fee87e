"""Settings of the models that are trained on a sample of the corpus itself, apart from their code so that a plan need
not import that.

- `QualityClassifierConfig`
- `PerplexityConfig`
"""

from typing import Self

from pydantic import Field, model_validator

from data_schemas.config import FrozenConfig

NAMES = "genres or sources, as ingest names them"


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
