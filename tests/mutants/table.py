"""The table of docs/proof.md: which mutant, which guarantee it would break, which test notices it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.mutants.catalogue import CATALOGUE
from tests.mutants.runner import ROOT

DOCUMENT: Final = ROOT / "docs" / "proof.md"
BEGIN: Final = "<!-- mutants -->"
END: Final = "<!-- /mutants -->"


def markdown() -> str:
    lines = ["| planted fault | in | breaks | killed by |", "|---|---|---|---|"]
    for mutant in CATALOGUE:
        killers = ", ".join(f"`{path_of(killer)}`" for killer in mutant.killers)
        lines.append(f"| {mutant.name} | `{mutant.file}` | {mutant.breaks} | {killers} |")
    return "\n".join(lines)


def path_of(killer: str) -> str:
    return killer.removeprefix("tests/")


def written(document: str) -> str:
    """The document with the table of today between its markers. Errors: ValueError when they are not there."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{BEGIN} … {END} are not in it")
    return f"{before}{BEGIN}\n\n{markdown()}\n\n{END}{after}"


def write(path: Path = DOCUMENT) -> None:
    path.write_text(written(path.read_text()))
