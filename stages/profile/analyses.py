"""The analyses of a profile, by its config."""

from data_schemas.manifest import Volume
from stages.profile.analysis import Analysis
from stages.profile.config import ProfileConfig
from stages.profile.coverage.analyses import coverage_analyses


def analyses_of(config: ProfileConfig, volume: Volume) -> list[Analysis]:
    """All analyses of a corpus of some size, in the order of their figures."""
    from stages.profile.attributes import Attributes
    from stages.profile.compression import Compression
    from stages.profile.duplicates import Duplicates
    from stages.profile.lengths import Lengths
    from stages.profile.personal_data import PersonalData
    from stages.profile.readability import Readability
    from stages.profile.words.vocabulary import Vocabulary

    coverage = coverage_analyses(config.coverage, volume) if config.coverage else []
    return [
        Lengths(),
        Attributes(),
        Vocabulary(config.word_types, config.ngram_types),
        Compression(),
        Readability(),
        Duplicates(config.ngram_types),
        PersonalData(config.region),
        *coverage,
    ]
