from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.house import House

Open = Callable[..., Awaitable[House]]


@pytest.fixture
async def open_house(tmp_path: Path) -> AsyncIterator[Open]:
    """`await open_house(setting=…, options={…})`: options are the gateway's own, for clocks and timeouts."""
    made: list[House] = []

    async def open_(options: dict[str, Any] | None = None, **settings: Any) -> House:
        house = await House(tmp_path / str(len(made)), **settings).open(**(options or {}))
        made.append(house)
        return house

    yield open_
    for house in made:
        await house.close()


@pytest.fixture
async def house(open_house: Open) -> House:
    return await open_house()
