"""Rates measured on this machine, kept in the user's cache folder, one file per kind of machine.

- `machine_rates`: what was measured here, or with `measure=True` what is measured now
- `MachineRates`: products by precision, memory, and rates of stages
- `keep`: store them; `rates_file`: where
"""

import functools
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_schemas.user_cache import cache_folder
from infra.rates.machine import machine, machine_key
from infra.rates.products import measure_memory, measure_products
from infra.rates.rates import Rate
from infra.store.local_writes import replace_file

logger = logging.getLogger(__name__)
FILE_VERSION = 1


class MachineRates(BaseModel):
    """Measurements of one kind of machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: int = Field(FILE_VERSION, ge=1, le=FILE_VERSION)
    key: str = Field(description="digest of `machine`")
    machine: dict[str, Any] = Field(description="processor, flags, cores, quota, GPUs, system, version of torch")
    measured: datetime
    products: dict[str, Annotated[float, Field(gt=0)]] = Field(
        description="FLOPs per second of matrix products on all cores, by precision"
    )
    memory: float = Field(gt=0, description="bytes per second, read and written, of a copy in memory")
    rates: tuple[Rate, ...] = Field((), description="rates of stages, by `headrace calibrate`; empty before")
    seconds: float = Field(0.0, ge=0, description="time that the calibration took")


def machine_rates(measure: bool = False) -> MachineRates | None:
    """The rates of this machine that the cache folder holds.

    A damaged file, or one of another machine or version, counts as none; a line in the log says so.

    Args:
        measure: if there are none, measure products and memory now, which takes a few seconds and imports torch;
            they are kept, if the folder can be written to.
    """
    known = _read()
    return _measured_once(os.environ.get("XDG_CACHE_HOME"), machine_key()) if known is None and measure else known


@functools.cache
def _measured_once(cache: str | None, key: str) -> MachineRates:
    """Products and memory, measured once by this process even if they cannot be kept, and kept if they can."""
    measured = measured_now()
    keep(measured)
    return measured


def measured_now() -> MachineRates:
    """Products and memory, measured now, without rates of stages."""
    return MachineRates(
        key=machine_key(), machine=machine(), measured=datetime.now(UTC), products=measure_products(),
        memory=measure_memory(),
    )  # fmt: skip


def rates_file() -> Path:
    """headrace/rates/<kind of machine>.json in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        OSError: if there is no home.
    """
    return cache_folder("rates") / f"{machine_key()}.json"


def keep(rates: MachineRates) -> Path | None:
    """Store rates atomically; None, with a line in the log, if the folder cannot be written to."""
    try:
        path = rates_file()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(path, rates.model_dump_json(indent=1).encode())
    except OSError as error:
        reason = error.strerror or error
        logger.warning("the measured rates of this machine are not kept (%s); set XDG_CACHE_HOME to a folder", reason)
        return None
    return path


def _read() -> MachineRates | None:
    try:
        path = rates_file()
        rates = MachineRates.model_validate_json(path.read_bytes())
    except OSError:
        return None
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        logger.warning("%s cannot be used and counts as not measured: %s", path, reason)
        return None
    if rates.key != machine_key():
        logger.warning("%s is of another machine and counts as not measured", path)
        return None
    return rates
