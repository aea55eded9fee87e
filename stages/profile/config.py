"""The config section `profile`, in a module of its own so that `headrace plan` imports no compiled code.

- `ProfileConfig`: the whole section
- `SliceConfig`: how many slices each dimension has
"""

from pydantic import Field

from data_schemas.config import FrozenConfig, StageConfig
from stages.profile.coverage.config import CoverageConfig


class SliceConfig(FrozenConfig):
    """Number of slices: the largest values of each dimension have one, all others share `other`; 0 for no slices."""

    genre: int = Field(20, ge=0, le=1_000, description="genres with a slice of their own, the largest by documents")
    language: int = Field(20, ge=0, le=1_000, description="languages with a slice of their own")
    source: int = Field(20, ge=0, le=1_000, description="sources with a slice of their own")
    domain: int = Field(20, ge=0, le=1_000, description="hosts of the documents' URLs with a slice of their own")


class ProfileConfig(StageConfig):
    """Slices and precision of the profile."""

    slices: SliceConfig = Field(
        default_factory=SliceConfig, description="parts of the corpus with figures of their own"
    )
    word_types: int = Field(
        1 << 20,
        ge=1 << 10,
        description="distinct words that a slice counts exactly; of more, a sample and the most frequent are kept, in "
        "24 bytes each",
    )
    ngram_types: int = Field(
        1 << 18,
        ge=1 << 10,
        description="the same for distinct pairs of words, triples, texts, URLs and lines",
    )
    region: str = Field(
        "US",
        min_length=2,
        max_length=2,
        description="ISO 3166 code of the country of phone numbers without a country code, as in clean.personal_data",
    )
    coverage: CoverageConfig | None = Field(
        default_factory=CoverageConfig,
        description="entities, concepts, topics, genres, keywords and toxicity; null for none of them",
    )
