"""One `holdfast up` for the whole suite, with short heartbeats; tests that kill `up` itself make their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e" in str(item.fspath):
            item.add_marker(pytest.mark.ray)


@pytest.fixture(scope="session")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("e2e")
    (folder / "objects").mkdir()
    service = Service(
        folder,
        objects_dir=folder / "objects",
        heartbeat_s=1,
        server_ping_s=2,
        server_pong_s=2,
        stale_s=10,
        hibernate_after_s=5,
    ).start()
    yield service
    service.end()


@pytest.fixture
def service(shared_service: Service) -> Iterator[Service]:
    """The shared one, healthy; afterwards the test's own wrappers are ended."""
    assert shared_service.up is not None
    assert shared_service.up.poll() is None, shared_service.log.read_text()[-4000:]
    yield shared_service
    for wrapper in shared_service.wrappers:
        wrapper.end()
    shared_service.wrappers.clear()


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    """Not started; for tests that end `up`."""
    service = Service(tmp_path, heartbeat_s=1, server_ping_s=2, server_pong_s=2)
    yield service
    service.end()
