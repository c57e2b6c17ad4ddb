"""Every link inside the repository leads somewhere, its anchor included."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.generate import ROOT, documents
from tests.docs.reading import LINK, anchors, slug, text_of, without_code


def dead(path: Path, root: Path = ROOT) -> list[str]:
    return [
        link["target"] for link in LINK.finditer(without_code(text_of(path))) if is_dead(path, link["target"], root)
    ]


def is_dead(path: Path, target: str, root: Path) -> bool:
    if "://" in target or target.startswith("mailto:"):
        return False
    file, _, anchor = target.partition("#")
    goal = (path.parent / file).resolve() if file else path
    if not goal.exists() or not goal.is_relative_to(root):
        return True
    return bool(anchor) and goal.suffix == ".md" and anchor not in anchors(goal)


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_is_dead(path: Path) -> None:
    assert dead(path) == []


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    assert slug("What happens when `X` dies") == "what-happens-when-x-dies"
    page = tmp_path / "page.md"
    page.write_text("# Here\n[a](nowhere.md) [b](#there) [c](#here) [d](https://example.com) [e](../../etc/hosts)\n")
    assert dead(page, tmp_path) == ["nowhere.md", "#there", "../../etc/hosts"]


def test_every_document_can_be_reached_from_the_readme() -> None:
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        path = ahead.pop()
        if path in seen or path.suffix != ".md" or not path.exists():
            continue
        seen.add(path)
        targets = (link["target"].partition("#")[0] for link in LINK.finditer(without_code(text_of(path))))
        ahead += [(path.parent / target).resolve() for target in targets if target and "://" not in target]
    assert [str(path.relative_to(ROOT)) for path in documents() if path not in seen] == []
