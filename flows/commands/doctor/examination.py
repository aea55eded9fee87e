"""`headrace doctor`: all checks, as a table or JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from data_schemas.errors import EnvironmentProblem, HeadraceError
from flows.commands.doctor import machine, software
from flows.commands.doctor.finding import Check, Finding
from flows.console import console


def examine(store_url: str) -> list[Finding]:
    """Findings of all checks; a check that fails becomes a finding itself."""
    return [_finding(check) for check in (*machine.checks(store_url), *software.checks())]


def print_findings(findings: Sequence[Finding]) -> None:
    """Print what was found, a line each, and below it what is missing and how to get it."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(finding.name, Text(finding.found))
        if finding.advice:
            table.add_row("", Text(finding.advice, style="red" if finding.blocks else "yellow"))
    console.print(table)


def findings_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings as JSON: name, found, advice, blocks."""
    return [asdict(finding) for finding in findings]


def refuse_blocked(findings: Sequence[Finding]) -> None:
    """End with an error if no run can start here.

    Raises:
        EnvironmentProblem: naming what has to be mended.
    """
    blocking = [finding.name for finding in findings if finding.blocks]
    if blocking:
        raise EnvironmentProblem(f"no run can start here before this is mended: {', '.join(blocking)} (see above)")


def _finding(check: Check) -> Finding:
    try:
        return check()
    except HeadraceError as error:
        return Finding(getattr(check, "__name__", "store"), "unknown", str(error))
