"""Software that is installed or configured: packages, compiler, sandbox, Ray, Prefect, language data."""

import os
import platform
import warnings
from importlib import metadata

from data_schemas.public_urls import public_text
from flows.commands.doctor.finding import Check, Finding, refusal_of
from flows.prefect_server.connection import api_url, check_server
from infra.sandbox.readiness import check_sandbox
from infra.store.provenance import code_version, headrace_version
from infra.workers.ray_address import check_reachable
from infra.workers.ray_session import check_cluster
from modeling.kernels.compilation import compiler, library
from stages.common.wordnet import installed_folder
from stages.synthesize.engines.apertium import MODES, commands

PAIR = "eng-spa"
"""Language pair of the default backtranslation."""


def headrace() -> Finding:
    """Version of the package, of its code and of Python."""
    code = code_version()
    commit = f", commit {code['commit'][:12]}{' with changes' * code['dirty']}" if "commit" in code else ""
    return Finding(
        "Headrace",
        f"{headrace_version()}{commit}, Python {platform.python_version()}, torch {metadata.version('torch')}",
    )


def c_compiler() -> Finding:
    """The compiler of the C kernels, and whether they compile; they are kept for the next start."""
    reason = refusal_of(compiler)
    if reason:
        return Finding(
            "C compiler", "none",
            "torch's operations replace the C kernels of int8 and sparse decoding, with the same results but slower; "
            "on Debian and Ubuntu: apt-get install gcc libc6-dev",
        )  # fmt: skip
    command = " ".join(compiler())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        works = library() is not None
    if not works:
        reason = " ".join(str(warning.message) for warning in caught) or "the C kernels do not compile with it"
        return Finding("C compiler", command, reason)
    return Finding("C compiler", f"{command}; the C kernels are compiled")


def sandbox() -> Finding:
    """The box in which benchmarks run programs that a model wrote."""
    reason = refusal_of(check_sandbox)
    return Finding("sandbox", "none" if reason else "works", reason)


def ray() -> Finding:
    """Version of Ray, and whether the cluster of RAY_ADDRESS answers, or Ray can start here."""
    version, address = metadata.version("ray"), os.environ.get("RAY_ADDRESS")
    if not address:
        return Finding("Ray", f"{version}, started on this machine by each run", refusal_of(check_cluster))
    reason = refusal_of(lambda: check_reachable(address))
    advice = f"nothing answers there ({reason}); start the cluster, or unset RAY_ADDRESS" if reason else ""
    return Finding("Ray", f"{version}, cluster at RAY_ADDRESS={public_text(address)}", advice, blocks=bool(reason))


def prefect() -> Finding:
    """Version of Prefect, and whether the server of PREFECT_API_URL answers or a temporary one starts."""
    version, url = metadata.version("prefect"), api_url()
    reason = refusal_of(check_server)
    found = f"server at {public_text(url)}" if url else "temporary server with each run"
    return Finding("Prefect", f"{version}, {found}", reason, blocks=bool(reason))


def wordnet() -> Finding:
    """WordNet, for synonyms and for the concepts of a profile."""
    reason = refusal_of(installed_folder)
    return Finding(
        "WordNet", "none" if reason else str(installed_folder()), reason and f"only for synonyms and concepts: {reason}"
    )


def apertium() -> Finding:
    """Apertium's pair for backtranslation."""
    reason = refusal_of(lambda: commands(PAIR))
    return Finding(
        "Apertium", "none" if reason else f"{PAIR} in {MODES}", reason and f"only for backtranslation: {reason}"
    )


def checks() -> list[Check]:
    """All of this module, in the order of the table."""
    return [headrace, c_compiler, sandbox, ray, prefect, wordnet, apertium]
