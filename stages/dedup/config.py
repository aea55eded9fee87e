"""The config section `dedup`; apart from the stage's code so that a plan need not import that.

- `DedupConfig`: the whole section; near duplicates are in `near_duplicates/minhash_config.py`
- `DecontaminationConfig`, `ParagraphConfig`, `ExactSubstringConfig`: the steps that cut text out of documents
"""

from typing import Literal

from pydantic import Field, model_validator

from data_schemas.config import FrozenConfig, StageConfig
from stages.dedup.near_duplicates.minhash_config import MinHashConfig, SurvivorConfig


class ParagraphConfig(FrozenConfig):
    """Paragraphs or lines that occur in several documents; the first ones stay, in the order of the documents' ids."""

    unit: Literal["paragraph", "line"] = Field("paragraph", description="paragraphs end at an empty line")
    min_characters: int = Field(
        100, gt=0, description="characters from which a unit counts; shorter ones are headings and turns of phrase"
    )
    most: int = Field(1, gt=0, description="occurrences that stay")


class ExactSubstringConfig(FrozenConfig):
    """Equal stretches of text in several places (Lee et al. 2021, 2107.06499); the first stays, in the order of ids."""

    min_bytes: int = Field(
        200, ge=20, description="bytes from which a repeat is cut; the paper's 50 tokens are about 200 bytes"
    )
    max_bytes: int = Field(
        1_000_000_000, gt=0, description="most text that the suffix array is built of; it takes 7 bytes of memory each"
    )


class DecontaminationConfig(FrozenConfig):
    """Benchmark items that stand in the text, by n-grams of words (Brown et al. 2020, 2005.14165, appendix C)."""

    benchmarks: tuple[str, ...] = Field(
        min_length=1, description="globs over the benchmarks' files on any fsspec URL: .tsv, .csv, .jsonl, .json, .xml"
    )
    action: Literal["drop", "cut", "tag", "report"] = Field(
        "drop", description="what happens to a document that holds an n-gram of an item"
    )
    ngram: int = Field(13, ge=2, description="words of an n-gram, compared without case and punctuation")
    min_words: int = Field(
        8,
        ge=2,
        description="an item without so long a field as `ngram` is sought by its fields of at least this length",
    )
    also_report: int | None = Field(8, ge=2, description="a second length, which is only reported")
    max_documents: int = Field(
        10, gt=0, description="an n-gram in more documents than this is common property, not a leak, and is ignored"
    )
    window_characters: int = Field(200, ge=0, description="cut with an n-gram on each side of it")
    max_windows: int = Field(10, gt=0, description="a document with more cuts than this is dropped")

    @model_validator(mode="after")
    def _lengths_differ(self) -> "DecontaminationConfig":
        if self.min_words > self.ngram:
            raise ValueError(
                f"min_words is {self.min_words}, more than ngram, {self.ngram}; it can be 2 to {self.ngram}"
            )
        if self.also_report == self.ngram:
            raise ValueError(f"also_report is {self.ngram}, as ngram is; give another length or null")
        return self


class DedupConfig(StageConfig):
    """When two documents count as the same, what is cut out of documents, and how many are held out."""

    near: MinHashConfig = Field(default_factory=MinHashConfig, description="when two documents are near duplicates")
    survivor: SurvivorConfig = Field(default_factory=SurvivorConfig, description="which document of a cluster stays")
    against: tuple[str, ...] = Field(
        (), description="folders of earlier dedup artifacts; documents that duplicate theirs go, by their index alone"
    )
    decontaminate: DecontaminationConfig | None = Field(None, description="keeps benchmark items out; off if left out")
    paragraphs: ParagraphConfig | None = Field(None, description="cuts repeated paragraphs or lines; off if left out")
    exact_substring: ExactSubstringConfig | None = Field(
        None, description="cuts repeated stretches of text, all text in one process's memory; off if left out"
    )
    min_characters_left: int = Field(
        200, ge=0, description="a document that is cut to fewer is dropped (as 2005.14165, appendix C, drops pieces)"
    )
    held_out_share: float = Field(0.03, gt=0, lt=0.5, description="share of the documents kept from all training")
    seed: int = Field(0, ge=0, description="of the choice of held-out documents")
