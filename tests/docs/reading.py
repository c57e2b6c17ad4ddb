"""What the tests read out of the documents: blocks of code, links, anchors, commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.generate import ROOT, documents

FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (?P<text>.+)$", re.MULTILINE)
PROGRAMS = ("holdfast", "holdfast-wrapper")


@dataclass(frozen=True)
class Command:
    document: str
    line: str
    run: bool  # ```sh tested: it is executed; otherwise only its program, subcommand and options are checked

    def __str__(self) -> str:
        return f"{self.document}: {self.line}"

    def words(self) -> list[str]:
        """Of our own program, without what follows `--` (that is somebody else's command)."""
        words = shlex.split(self.line, comments=True)
        return words[: words.index("--")] if "--" in words else words


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def shell_lines() -> Iterator[Command]:
    """Every line of every ```sh block; a line that ends in a backslash goes on."""
    for path in documents():
        for fence in FENCE.finditer(text_of(path)):
            info = fence["info"].split()
            if info[:1] != ["sh"]:
                continue
            for line in fence["body"].replace("\\\n", " ").splitlines():
                if line.strip() and not line.lstrip().startswith("#"):
                    yield Command(str(path.relative_to(ROOT)), line.strip(), "tested" in info)


def inline() -> Iterator[Command]:
    """Commands in a sentence, if they name an option; most others are patterns, or a group's name."""
    for path in documents():
        for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text_of(path))):
            words = code.split()
            if words and words[0] in PROGRAMS and any(word.startswith("--") and word != "--" for word in words):
                yield Command(str(path.relative_to(ROOT)), code, False)


def our_commands() -> list[Command]:
    return [command for command in (*shell_lines(), *inline()) if command.line.split()[0] in PROGRAMS]


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", ""))
    return kept.replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {slug(found["text"]) for found in HEADING.finditer(FENCE.sub("", text_of(path)))}
