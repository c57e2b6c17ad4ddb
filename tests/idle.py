"""What is `timeless` is done in the idle time of the others: most of the suite waits for real processes, and the
simulation and its like only compute. So with pytest-xdist one more process, of the lowest priority, does them one after
the other from the beginning on, while the workers do the rest. When a worker comes to one, it is done, or is being done
and is waited for, or nobody has begun it and the worker does it itself.

A test is begun by whoever makes its file of claim first, so it is run once. Its report, whatever it says, is the report
of the test. If the process dies, the workers do what it has not done. Without xdist nothing of this happens.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

FOLDER: Final = "PYTEST_IDLE_FOLDER"  # in the environment of the process that works in idle time, and only there
LONGEST_S: Final = 1800  # of one test there: idle time may be rare
PR_SET_PDEATHSIG: Final = 1
_reports: dict[str, dict[str, Any]] = {}


def _folder(config: pytest.Config) -> Path | None:
    """Shared by the workers of this run; None without workers."""
    if FOLDER in os.environ:
        return Path(os.environ[FOLDER])
    if "PYTEST_XDIST_WORKER" not in os.environ or config.option.basetemp is None:
        return None
    return Path(config.option.basetemp).parent / "idle"


def _file(folder: Path, nodeid: str, kind: str) -> Path:
    return folder / f"{hashlib.blake2b(nodeid.encode(), digest_size=8).hexdigest()}.{kind}"


def _claimed(folder: Path, nodeid: str) -> bool:
    """Whether it is ours to run."""
    try:
        _file(folder, nodeid, "claim").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _pid(folder: Path) -> int | None:
    """Of the process, while it lives."""
    try:
        pid = int((folder / "pid").read_text())
        alive = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, ValueError):
        return None
    return pid if alive else None


@contextmanager
def put_aside(config: pytest.Config) -> Iterator[None]:
    """Nothing is done in idle time meanwhile: somebody measures."""
    folder = _folder(config)
    pid = None if folder is None else _pid(folder)
    if pid is not None:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if pid is not None:
            os.kill(pid, signal.SIGCONT)


# ---------------------------------------------------------------- in a worker


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whoever wants the machine to themselves come first: one behind the other nobody waits for half a test of somebody
    else. What is timeless comes last, so that most of it is done by then."""
    if _folder(config) is not None:
        items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    places = {"crowd": 0, "alone": 1, "timeless": 3}
    return next((place for name, place in places.items() if item.get_closest_marker(name)), 2)


def pytest_collection_finish(session: pytest.Session) -> None:
    folder = _folder(session.config)
    if folder is None or FOLDER in os.environ or os.environ["PYTEST_XDIST_WORKER"] != "gw0":
        return
    timeless = [item.nodeid for item in session.items if item.get_closest_marker("timeless")]
    if session.config.option.collectonly or not timeless or len(timeless) == len(session.items):
        return
    folder.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"-otimeout={LONGEST_S}"),
                f"--basetemp={folder / 'tmp'}",
                *timeless,
            ],
            cwd=session.config.rootpath,
            env=env | {FOLDER: str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    (folder / "pid").write_text(str(process.pid))
    session.config.add_cleanup(lambda: _end(process, folder, patient=not session.config.option.maxfail))


def _end(process: subprocess.Popen[bytes], folder: Path, *, patient: bool) -> None:
    """What it is at, another worker may be waiting for; what it would begin now, that worker begins itself."""
    if patient and (folder / "at").exists():
        report = _file(folder, (folder / "at").read_text(), "report")
        while process.poll() is None and not report.exists():
            time.sleep(0.05)
    process.kill()
    process.wait()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    folder = _folder(pyfuncitem.config)
    if folder is None or FOLDER in os.environ or not folder.exists():
        return None
    if pyfuncitem.get_closest_marker("timeless") is None or _claimed(folder, pyfuncitem.nodeid):
        return None
    report = _file(folder, pyfuncitem.nodeid, "report")
    while not report.exists():
        if _pid(folder) is None and not report.exists():
            return None  # it died over this one
        time.sleep(0.05)
    told = json.loads(report.read_text())
    print(told["said"])
    if told["outcome"] == "failed":
        pytest.fail(told["why"], pytrace=False)
    if told["outcome"] == "skipped":
        pytest.skip(told["why"])
    return True


# ---------------------------------------------------------------- in the process that works in idle time


def pytest_configure(config: pytest.Config) -> None:
    if FOLDER in os.environ:
        os.nice(19)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # whoever wanted to know is gone


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    if FOLDER not in os.environ:
        return None
    folder = Path(os.environ[FOLDER])
    if not _claimed(folder, item.nodeid):
        return True
    (folder / "at.new").write_text(item.nodeid)
    (folder / "at.new").replace(folder / "at")
    return None


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if FOLDER not in os.environ:
        return
    told = _reports.setdefault(report.nodeid, {"outcome": "passed", "why": "", "said": "", "took_s": 0.0})
    told["took_s"] += report.duration
    if report.outcome != "passed" and told["outcome"] == "passed":
        told |= {"outcome": report.outcome, "why": f"{report.when}: {report.longreprtext or report.longrepr}"}
    if report.when == "teardown":
        told["said"] = f"{report.capstdout}(in idle time: {told['took_s']:.0f} s)"
        file = _file(Path(os.environ[FOLDER]), report.nodeid, "report")
        file.with_suffix(".new").write_text(json.dumps(told))
        file.with_suffix(".new").replace(file)
