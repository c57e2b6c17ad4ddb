"""A folder that is still there after a power cut: SQLite syncs the folder of its files, but nobody the one above."""

from __future__ import annotations

import os
from pathlib import Path


def make_folder(path: Path) -> None:
    """Makes it, and what is missing above it; each name is on the disk with the folder that holds it."""
    if path.is_dir():
        return
    make_folder(path.absolute().parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.absolute().parent)


def sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
