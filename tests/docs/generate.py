"""`python -m tests.docs.generate` rewrites every generated block of the documents in its place.

A block stands between `<!-- generated:NAME -->` and `<!-- /generated -->`. With `--check` nothing is written, and the
exit code is 1 if something is stale.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.docs.tables import BLOCKS

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"<!-- generated:(?P<name>[a-z-]+) -->\n.*?<!-- /generated -->", re.DOTALL)
SKIPPED = {".venv", "node_modules", "build", "dist"}


def documents() -> list[Path]:
    """Every markdown file of the repository."""
    found = (
        path
        for path in ROOT.rglob("*.md")
        if not any(p in SKIPPED or p[0] == "." for p in path.parts[len(ROOT.parts) :])
    )
    return sorted(found)


def fresh(text: str) -> str:
    """The text with every generated block made anew. Raises KeyError for a block that nobody makes."""
    return BLOCK.sub(
        lambda found: f"<!-- generated:{found['name']} -->\n{BLOCKS[found['name']]()}\n<!-- /generated -->", text
    )


def main(argv: list[str]) -> int:
    stale = 0
    for path in documents():
        text = path.read_text("utf-8")
        made = fresh(text)
        if made == text:
            continue
        stale += 1
        print(f"{'stale' if '--check' in argv else 'rewritten'}: {path.relative_to(ROOT)}")
        if "--check" not in argv:
            path.write_text(made, "utf-8")
    return 1 if stale and "--check" in argv else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
