"""Personal data that is left in the text, by the finders that clean replaces it with."""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from stages.common.personal_data.finders import find
from stages.common.personal_data.kinds import KINDS
from stages.profile.analysis import Analysis, Measure, State


class PersonalData(Analysis):
    """Matches and documents with a match, by kind; matches are counted, never stored."""

    name = "personal_data"

    def __init__(self, region: str = "US") -> None:
        self._region = region

    def empty(self) -> State:
        """Counts of zero."""
        return {"matches": dict.fromkeys(KINDS, 0), "documents": dict.fromkeys((*KINDS, "any"), 0), "read": 0}

    def add(self, state: State, documents: pa.RecordBatch) -> State:
        """Search more documents."""
        matches, with_match = Counter[str](), Counter[str]()
        for text in documents.column("text").to_pylist():
            kinds = [match.kind for match in find(text, KINDS, self._region)]
            matches.update(kinds)
            with_match.update({*kinds, "any"} if kinds else ())
        more = {
            "matches": {kind: matches[kind] for kind in KINDS},
            "documents": {kind: with_match[kind] for kind in (*KINDS, "any")},
            "read": len(documents),
        }
        return self.merge(state, more)

    def merge(self, first: State, second: State) -> State:
        """Add the counts."""
        sums = {
            part: {kind: first[part][kind] + second[part][kind] for kind in first[part]}
            for part in ("matches", "documents")
        }
        return {**sums, "read": first["read"] + second["read"]}

    def measures(self, state: State) -> Sequence[Measure]:
        """`personal_data.matches` and `personal_data.documents` by kind, and the share of documents with any."""
        if not state["read"]:
            return []
        return [
            Measure("personal_data.share", state["documents"]["any"] / state["read"], "share"),
            *(Measure("personal_data.documents", state["documents"][kind], "documents", kind) for kind in KINDS),
            *(Measure("personal_data.matches", state["matches"][kind], "matches", kind) for kind in KINDS),
        ]
