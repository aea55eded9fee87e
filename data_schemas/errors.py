"""Errors that a user can cause or fix.

Each message is one or two sentences: the file, field or row, what was found, what is accepted, and the command that
helps. Internal invariants are `assert`s instead.
"""

from data_schemas.public_urls import public_text


class HeadraceError(Exception):
    """Base of all errors that a user can cause; the command line prints it without a traceback and exits with 2.

    URLs in its message lose passwords and signatures: messages are kept in records, logs and databases.
    """

    def __init__(self, message: str = "", *more: object) -> None:
        super().__init__(public_text(message), *more)


class ConfigError(HeadraceError):
    """An invalid run config, `--set` or model config; retrying does not help."""


class ContractError(HeadraceError):
    """A stage's output does not match the kind or schema that its reader declares; retrying does not help."""


class DamagedArtifactError(HeadraceError):
    """A file of a committed artifact is missing, truncated or altered."""


class NotFoundError(HeadraceError):
    """A run, an artifact, a stage or a file that does not exist."""


class UnreadableRecordError(NotFoundError):
    """A run record or a manifest that this version cannot read; commands continue as if it did not exist."""

    is_damaged: bool = False
    """It is no JSON, whatever the version."""


class FencedError(HeadraceError):
    """Another process has taken over the run; what this process still writes no longer counts."""


class InputDataError(HeadraceError):
    """The user's data cannot be read, or nothing in it can be used."""


class EnvironmentProblem(HeadraceError):
    """The machine lacks a requirement: a package, memory, a device, a reachable service."""


class StoreUnavailable(EnvironmentProblem):
    """A store that did not answer after all retries; it may again later."""


class JobLostError(EnvironmentProblem):
    """A job, or Ray, ended without saying why: its driver, its node or the cluster is gone; worth a retry."""


class TrainingDivergedError(HeadraceError):
    """Loss or gradient became non-finite; the same config diverges again."""
