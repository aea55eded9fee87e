"""WordNet 3.x, read from its own data files (Fellbaum 1998; the formats are those of wndb(5WN) and cntlist(5WN)).

- `installed_folder`, `is_installed`: where the files are, or an error with the command that installs them
- `load`: the WordNet of a folder, parsed once per process
- `digest_of`: its digest, without parsing it
- `WordNet`: senses of a base form, base forms of an inflected word
- `Sense`: supersense, synonyms and frequency
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from data_schemas.errors import EnvironmentProblem, InputDataError

FOLDERS = ("/usr/share/wordnet", "/usr/local/share/wordnet", "/usr/local/WordNet-3.0/dict")
"""Where Debian's package and WordNet's own installer put the files; the variable `WNSEARCHDIR` precedes them."""
INSTALL = "apt-get install wordnet-base"
FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
"""Part of speech -> extension of its files."""
SUPERSENSES = (
    "adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact", "noun.attribute",
    "noun.body", "noun.cognition", "noun.communication", "noun.event", "noun.feeling", "noun.food", "noun.group",
    "noun.location", "noun.motive", "noun.object", "noun.person", "noun.phenomenon", "noun.plant", "noun.possession",
    "noun.process", "noun.quantity", "noun.relation", "noun.shape", "noun.state", "noun.substance", "noun.time",
    "verb.body", "verb.change", "verb.cognition", "verb.communication", "verb.competition", "verb.consumption",
    "verb.contact", "verb.creation", "verb.emotion", "verb.motion", "verb.perception", "verb.possession",
    "verb.social", "verb.stative", "verb.weather", "adj.ppl",
)  # fmt: skip
"""Names of the lexicographer files, by number (lexnames(5WN)): the coarse meaning of a sense."""
_ENDINGS = {
    "n": (("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"),
          ("ies", "y")),
    "v": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}  # fmt: skip
"""Rules of detachment of morphy(7WN)."""
_TYPES = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
"""Part of speech of a sense key's type; 5 is an adjective satellite."""


class Sense(NamedTuple):
    """One meaning of a word."""

    supersense: str
    """Name of its lexicographer file, such as `noun.person`."""
    words: tuple[str, ...]
    """All words of the synset, with spaces, in WordNet's order and case; the word itself is among them."""
    occurrences: int
    """Times this sense was tagged in the text (SemCor) that WordNet counted."""


@dataclass(frozen=True)
class WordNet:
    """The database of one folder.

    Attributes:
        digest: sha256 of the files, in hexadecimal: two databases of the same digest give the same answers.
    """

    digest: str
    _senses: Mapping[tuple[str, str], tuple[tuple[int, int], ...]]
    """(base form, part of speech) -> (offset in the data file, count) of each sense, most frequent first."""
    _synsets: Mapping[tuple[str, int], tuple[int, tuple[str, ...]]]
    """(part of speech, offset) -> number of the supersense, words."""
    _exceptions: Mapping[tuple[str, str], tuple[str, ...]]
    """(inflected form, part of speech) -> base forms."""

    def senses(self, base_form: str, part_of_speech: str) -> tuple[Sense, ...]:
        """Senses of a base form as `n`, `v`, `a` (adjective) or `r` (adverb), most frequent first; () if unknown.

        Args:
            base_form: lower case, words of a phrase separated by spaces.
            part_of_speech: a key of `FILES`.
        """
        found = []
        for offset, count in self._senses.get((base_form.replace(" ", "_"), part_of_speech), ()):
            supersense, words = self._synsets[part_of_speech, offset]
            found.append(Sense(SUPERSENSES[supersense], words, count))
        return tuple(found)

    def all_base_forms(self) -> list[str]:
        """Every base form of any part of speech, sorted, with spaces in phrases."""
        return sorted({form.replace("_", " ") for form, _ in self._senses})

    def base_forms(self, word: str, part_of_speech: str) -> tuple[str, ...]:
        """Forms of which the lower-case `word` may be an inflection and that WordNet knows: `geese` -> `goose`.

        As morphy(7WN): the listed exceptions and the word itself, or, without exceptions, the word itself and what the
        rules of detachment make of it.
        """
        word = word.replace(" ", "_")
        listed = self._exceptions.get((word, part_of_speech))
        endings = () if listed else _ENDINGS[part_of_speech]
        forms = [*(listed or ()), word]
        forms += [word[: -len(old)] + new for old, new in endings if word.endswith(old) and len(word) > len(old)]
        known = dict.fromkeys(form for form in forms if (form, part_of_speech) in self._senses)
        return tuple(form.replace("_", " ") for form in known)

    def irregular_forms(self, base_form: str, part_of_speech: str) -> tuple[str, ...]:
        """Listed inflections of a base form, which no rule makes: `goose` -> `geese`; () if there are none."""
        return self._irregular.get((base_form, part_of_speech), ())

    @cached_property
    def _irregular(self) -> dict[tuple[str, str], tuple[str, ...]]:
        forms: dict[tuple[str, str], list[str]] = {}
        for (inflected, part_of_speech), base_forms in self._exceptions.items():
            for base_form in base_forms:
                forms.setdefault((base_form, part_of_speech), []).append(inflected)
        return {key: tuple(sorted(inflected)) for key, inflected in forms.items()}


def is_installed(folder: str | None = None) -> bool:
    """Whether `installed_folder` has one."""
    try:
        return installed_folder(folder).is_dir()
    except EnvironmentProblem:
        return False


def installed_folder(folder: str | None = None) -> Path:
    """Folder of WordNet's files: `folder` if given, else `$WNSEARCHDIR`, else the first of `FOLDERS` that has them.

    Raises:
        EnvironmentProblem: no such folder has `data.noun`.
    """
    candidates = [folder] if folder else [path for path in (os.environ.get("WNSEARCHDIR"), *FOLDERS) if path]
    for path in map(Path, candidates):
        if (path / "data.noun").is_file():
            return path
    raise EnvironmentProblem(
        f"WordNet's file data.noun is not in {', '.join(candidates)}; install it with {INSTALL}, or set WNSEARCHDIR "
        "to the folder that has it"
    )


def load(folder: Path) -> WordNet:
    """WordNet of a folder: two seconds at first, 100 MB, kept for the life of the process.

    Raises:
        InputDataError: a file is missing, truncated or in another format.
    """
    return _load(str(folder))


@cache
def digest_of(folder: Path) -> str:
    """Digest of the WordNet of a folder; a tenth of the time that `load` takes.

    Raises:
        InputDataError: a file is missing.
    """
    digest = hashlib.sha256()
    _read(str(folder), "cntlist.rev", digest, required=False)
    for name in FILES.values():
        _read(str(folder), f"data.{name}", digest)
        _read(str(folder), f"index.{name}", digest)
        _read(str(folder), f"{name}.exc", digest, required=False)
    return digest.hexdigest()


@cache
def _load(folder: str) -> WordNet:
    digest = hashlib.sha256()
    senses: dict[tuple[str, str], tuple[tuple[int, int], ...]] = {}
    synsets: dict[tuple[str, int], tuple[int, tuple[str, ...]]] = {}
    exceptions: dict[tuple[str, str], tuple[str, ...]] = {}
    counts = _counts(_read(folder, "cntlist.rev", digest, required=False))
    for pos, name in FILES.items():
        for line in _rows(_read(folder, f"data.{name}", digest)):
            synsets[pos, int(line[:8])] = _synset(folder, name, line)
        for line in _rows(_read(folder, f"index.{name}", digest)):
            form, offsets = _indexed(line)
            if any((pos, offset) not in synsets for offset in offsets):
                raise InputDataError(f"{folder}/index.{name} refers to a synset that data.{name} lacks: {form}")
            senses[form, pos] = tuple((o, counts.get((form, pos, n), 0)) for n, o in enumerate(offsets, 1))
        for line in _read(folder, f"{name}.exc", digest, required=False).splitlines():
            inflected, *forms = line.split()
            exceptions[inflected, pos] = (*exceptions.get((inflected, pos), ()), *forms)
    return WordNet(digest.hexdigest(), senses, synsets, exceptions)


def _read(folder: str, name: str, digest: "hashlib._Hash", *, required: bool = True) -> str:
    path = Path(folder, name)
    if not path.is_file():
        if required:
            raise InputDataError(
                f"{path} does not exist, so {folder} is no complete WordNet; install it with {INSTALL}"
            )
        return ""
    data = path.read_bytes()
    digest.update(f"{name} {len(data)}\n".encode() + data)
    return data.decode("utf-8", errors="replace")


def _rows(text: str) -> Iterator[str]:
    """Lines without the licence, whose lines begin with a space."""
    return (line for line in text.split("\n") if line and not line.startswith(" "))


def _synset(folder: str, name: str, line: str) -> tuple[int, tuple[str, ...]]:
    """`offset lexfile type count(hex) word lex_id word lex_id ...`; adjectives may end in a marker: `galore(ip)`."""
    fields = line.split(" ", 4)
    try:
        supersense, size = int(fields[1]), int(fields[3], 16)
        words = fields[4].split(" ", 2 * size)[: 2 * size : 2]
        assert len(words) == size and supersense < len(SUPERSENSES)
    except (IndexError, ValueError, AssertionError):
        raise InputDataError(f"{folder}/data.{name} is not in WordNet's format: {line[:60]!r}") from None
    return supersense, tuple(word.partition("(")[0].replace("_", " ") for word in words)


def _indexed(line: str) -> tuple[str, list[int]]:
    """`form pos synsets pointers ... senses tagged offset ...`: the base form, offsets of its senses."""
    fields = line.split()
    return fields[0], [int(offset) for offset in fields[-int(fields[2]) :]]


def _counts(text: str) -> dict[tuple[str, str, int], int]:
    """`form%type:file:id:head:id sense count` -> occurrences of (form, part of speech, number of the sense from 1)."""
    found: dict[tuple[str, str, int], int] = {}
    for line in text.splitlines():
        key, sense, count = line.split()
        form, _, rest = key.partition("%")
        found[form, _TYPES[rest[0]], int(sense)] = int(count)
    return found
