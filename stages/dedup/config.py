"""The config section `dedup`, in a module of its own so that `headrace plan` imports no compiled code.

- `DedupConfig`: the whole section; the config of near duplicates is in `stages/common/minhash_config.py`
- `SurvivorConfig`: the rule for the document of a cluster that is kept
- `DecontaminationConfig`, `ParagraphConfig`, `ExactSubstringConfig`: the steps that cut text out of documents
"""

from typing import Literal

from pydantic import Field, model_validator

from data_schemas.config import FrozenConfig, StageConfig
from stages.common.benchmark_ngrams.config import NgramConfig
from stages.common.minhash_config import MinHashConfig


class SurvivorConfig(FrozenConfig):
    """Rule that selects the survivor of a cluster: the first by these criteria, ties broken by the smallest id."""

    order: tuple[Literal["source_priority", "quality", "length"], ...] = Field(
        ("source_priority", "quality", "length"),
        description="criteria, most important first: rank in `source_priority`, highest quality, longest text",
    )
    source_priority: tuple[str, ...] = Field((), description="sources, best first; the others rank last")

    @model_validator(mode="after")
    def _check_distinct(self) -> "SurvivorConfig":
        for name, values in (("order", self.order), ("source_priority", self.source_priority)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has duplicates: {', '.join(values)}; list each name once")
        return self


class ParagraphConfig(FrozenConfig):
    """Paragraphs or lines that occur in several documents; the first occurrences by document id are kept."""

    unit: Literal["paragraph", "line"] = Field("paragraph", description="paragraphs end at an empty line")
    min_characters: int = Field(
        100, gt=0, description="minimum length of a unit in characters; shorter ones are headings and idioms"
    )
    most: int = Field(1, gt=0, description="number of occurrences to keep")


class ExactSubstringConfig(FrozenConfig):
    """Repeated substrings (Lee et al. 2021, 2107.06499); the first occurrence by document id is kept."""

    min_bytes: int = Field(
        200, ge=20, description="minimum length of a repeat in bytes; the paper's 50 tokens are about 200 bytes"
    )
    max_bytes: int = Field(
        1_000_000_000,
        gt=0,
        description="maximum bytes of text for the suffix array, which takes 7 bytes of memory per byte",
    )


class DecontaminationConfig(NgramConfig):
    """Removal of benchmark items that occur in the text."""

    action: Literal["drop", "cut", "tag", "report"] = Field(
        "drop", description="action on a document that contains an n-gram of an item"
    )
    window_characters: int = Field(200, ge=0, description="characters to cut on each side of an n-gram")
    max_windows: int = Field(10, gt=0, description="a document with more cuts than this is dropped")


class DedupConfig(StageConfig):
    """Near-duplicate detection, cuts within documents, and the held-out split."""

    near: MinHashConfig = Field(default_factory=MinHashConfig, description="near-duplicate detection")
    survivor: SurvivorConfig = Field(
        default_factory=SurvivorConfig, description="rule for the document of a cluster that is kept"
    )
    against: tuple[str, ...] = Field(
        (),
        description="folders of earlier dedup artifacts; duplicates of their documents are dropped (only the index is "
        "read)",
    )
    decontaminate: DecontaminationConfig | None = Field(None, description="removes benchmark items; off by default")
    paragraphs: ParagraphConfig | None = Field(None, description="cuts repeated paragraphs or lines; off by default")
    exact_substring: ExactSubstringConfig | None = Field(
        None, description="cuts repeated substrings, with all text in one process's memory; off by default"
    )
    min_characters_left: int = Field(
        200, ge=0, description="a document cut to fewer characters is dropped (as in 2005.14165, appendix C)"
    )
    held_out_share: float = Field(
        0.03, gt=0, lt=0.5, description="share of the documents that are held out of all training"
    )
    seed: int = Field(0, ge=0, description="seed of the held-out split")
