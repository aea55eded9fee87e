"""The recorded contents of each stage, beside its version, and their comparison with the present ones.

- `compare`: outcome for one stage
- `record`: writes the present contents into the fixture, unless that would hide a change
- `stale_packages`: why a stage cannot be compared in this environment
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.store import provenance
from stages.registry import stage_named
from tests.stages.versions.contents import Contents

FIXTURE = Path(__file__).with_name("versions.json")
COMMAND = "python -m tests.stages.record_versions"
TOLERANCE = 1e-3
"""Relative; the figures of two processors differed by up to 7e-5 (AVX-512 with VNNI, and SSE4)."""
ABSOLUTE_TOLERANCE = 1e-4
"""For figures near zero, such as a change of bits."""


class VersionError(Exception):
    """The contents and the version of a stage do not belong together."""


@dataclass(frozen=True)
class Held:
    """A stage's entry of the fixture."""

    version: int
    packages: Mapping[str, str]
    files: Mapping[str, str]
    figures: Mapping[str, Sequence[float]]


def held(path: Path = FIXTURE) -> dict[str, Held]:
    """Stage -> its entry."""
    return {name: Held(**entry) for name, entry in json.loads(path.read_text()).items()} if path.exists() else {}


def packages_of(name: str) -> dict[str, str]:
    """Installed versions of the packages that a stage declares, for the largest set that it can declare here."""
    stage = stage_named(name)
    config: dict[str, Any] = {"path": "*.txt"} if name == "ingest" else {}
    return provenance.declared_versions(stage.packages(stage.Config.model_validate(config)))


def stale_packages(entry: Held, installed: Mapping[str, str]) -> str | None:
    """Reason why a stage cannot be compared: another version of a declared package; None if there is none.

    Raises:
        VersionError: if the stage declares other packages than were recorded.
    """
    if entry.packages.keys() != installed.keys():
        names = ", ".join(sorted(entry.packages.keys() ^ installed.keys()))
        raise VersionError(f"the declared packages changed ({names}); record the stage with: {COMMAND}")
    changes = [
        f"{name} {entry.packages[name]} -> {now}" for name, now in installed.items() if entry.packages[name] != now
    ]
    return f"recorded with other packages: {', '.join(changes)}" if changes else None


def compare(name: str, version: int, entry: Held | None, now: Contents) -> None:
    """Check that a stage makes what was recorded for its version.

    Raises:
        VersionError: with the differing files, and what to do.
    """
    if entry is None:
        raise VersionError(f"{name} has no entry in {FIXTURE.name}; record it with: {COMMAND} {name}")
    different = differences(entry, now)
    if version < entry.version:
        raise VersionError(f"version {version} of {name} is lower than {entry.version}, which was recorded")
    if version == entry.version and different:
        listed = "\n  ".join(different)
        raise VersionError(
            f"raise the version of {name}: version {version} made other bytes of the same inputs before:\n  {listed}\n"
            f"then record them with: {COMMAND} {name}"
        )
    if version > entry.version:
        raise VersionError(
            f"{name} has version {version}, and {FIXTURE.name} holds what version {entry.version} makes; "
            f"record version {version} with: {COMMAND} {name}"
        )


def differences(entry: Held, now: Contents) -> list[str]:
    """A line for each file or figure that differs."""
    lines = [
        f"{path}: {_change(entry.files.get(path), now.files.get(path))}"
        for path in sorted(entry.files.keys() | now.files.keys())
        if entry.files.get(path) != now.files.get(path)
    ]
    for figure in sorted(entry.figures.keys() | now.figures.keys()):
        before, after = entry.figures.get(figure, ()), now.figures.get(figure, ())
        if len(before) != len(after):
            lines.append(f"{figure}: {len(before)} values -> {len(after)}")
        far = [pair for pair in zip(before, after, strict=False) if not _close(*pair)]
        if far:
            lines.append(f"{figure}: {far[0][0]:g} -> {far[0][1]:g}" + (f", {len(far)} values" if far[1:] else ""))
    return lines


def _change(before: str | None, after: str | None) -> str:
    return "new file" if before is None else "no longer written" if after is None else "other content"


def _close(before: float, after: float) -> bool:
    if math.isnan(before) or math.isnan(after):
        return math.isnan(before) and math.isnan(after)
    return math.isclose(before, after, rel_tol=TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)


def record(name: str, version: int, now: Contents, path: Path = FIXTURE, force: bool = False) -> list[str]:
    """Write a stage's entry; returns the differences from the one before.

    Raises:
        VersionError: if the contents changed and neither the version nor a declared package did.
    """
    entries = held(path)
    before, packages = entries.get(name), packages_of(name)
    different = differences(before, now) if before else []
    unchanged = before is not None and (before.version, before.packages) == (version, packages)
    if before is not None and not force:
        if version < before.version:
            raise VersionError(f"version {version} of {name} is lower than {before.version}, which was recorded")
        if unchanged and different:
            listed = "\n  ".join(different)
            raise VersionError(
                f"raise the version of {name} first (now {version}); what it makes differs:\n  {listed}\n"
                "--force records it under the same version"
            )
    if unchanged and not different:
        return []  # figures keep their last digits
    figures = {figure: [float(f"{value:.6g}") for value in values] for figure, values in now.figures.items()}
    entries[name] = Held(version, packages, now.files, figures)
    path.write_text(_lines({stage: vars(entries[stage]) for stage in sorted(entries)}) + "\n")
    return different


def _lines(value: Any, depth: int = 0) -> str:
    """JSON with a line for each file and each figure."""
    if depth == 3 or not isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    margin = "\n" + " " * depth
    rows = (f"{margin} {json.dumps(name)}: {_lines(item, depth + 1)}" for name, item in sorted(value.items()))
    return "{" + ",".join(rows) + margin + "}"
