"""Everything a user can cause, as one family of exceptions.

Each message is one clear sentence or two: the file, field or row, what was found, what is accepted,
and the command that helps. Our own invariants are `assert`s, never these.
"""


class HeadraceError(Exception):
    """Base of every error a user can cause; the command line prints it without a traceback and exits with 2."""


class ConfigError(HeadraceError):
    """A run config, a `--set` or a model config that cannot be right; retrying does not help."""


class ContractError(HeadraceError):
    """What one stage wrote is not what the next one declares; retrying does not help."""


class DamagedArtifactError(HeadraceError):
    """A committed artifact's file is missing, truncated or altered."""


class NotFoundError(HeadraceError):
    """A run, an artifact, a stage or a file that does not exist."""


class InputDataError(HeadraceError):
    """The user's own data cannot be read or hold nothing usable."""


class EnvironmentProblem(HeadraceError):
    """The machine lacks what the work needs: a package, memory, a device, a reachable service."""


class TrainingDivergedError(HeadraceError):
    """Loss or gradient are no longer finite numbers; the same config diverges again."""
