"""Lineage: the inputs of each stage's artifact, and the code, machine and packages that made it."""

from collections.abc import Mapping
from dataclasses import dataclass

from data_schemas.manifest import Manifest, RunRecord


@dataclass(frozen=True)
class Input:
    """One input of an artifact."""

    name: str
    maker: str
    digest: str
    foreign: bool
    """Not the artifact that this run used for that stage, as after `rerun --only`."""


@dataclass(frozen=True)
class LineageRow:
    """One stage's artifact."""

    stage: str
    label: str
    digest: str
    inputs: list[Input]
    sources: list[tuple[str, str]]


@dataclass(frozen=True)
class Lineage:
    """Contents of the section."""

    rows: list[LineageRow]
    origins: list[tuple[str, str]]
    """(name, text): code, machine and packages of the newest artifact."""


def lineage(manifests: Mapping[str, Manifest], record: RunRecord) -> Lineage | None:
    """The section; None without an artifact."""
    if not manifests:
        return None
    newest = max(manifests.values(), key=lambda manifest: (manifest.sequence, manifest.ended))
    return Lineage([_row(manifest, record) for manifest in manifests.values()], _origins(newest))


def _row(manifest: Manifest, record: RunRecord) -> LineageRow:
    used = {outcome.artifact.digest for outcome in record.stages.values()}
    inputs = [Input(name, ref.stage, ref.digest[:12], ref.digest not in used) for name, ref in manifest.inputs.items()]
    sources = [(name, fingerprint[:12]) for name, fingerprint in manifest.sources.items()]
    return LineageRow(manifest.stage, manifest.ref.label, manifest.digest[:12], inputs, sources)


def _origins(manifest: Manifest) -> list[tuple[str, str]]:
    code, device = manifest.code, manifest.device
    commit = f"commit {code['commit'][:12]}" if "commit" in code else f"version {code.get('version', 'unknown')}"
    changed = ", with uncommitted changes" if code.get("dirty") else ""
    memory = f"{device['memory_bytes'] / 2**30:.0f} GiB of memory" if "memory_bytes" in device else ""
    machine = (
        device.get("processor"),
        f"{device['cores']} cores" if "cores" in device else "",
        memory,
        device.get("system"),
    )
    return [
        ("Code", commit + changed),
        ("Machine", ", ".join(part for part in machine if part)),
        ("Packages", ", ".join(f"{name} {version}" for name, version in manifest.packages.items())),
    ]
