from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.judge import CALLBACKS
from tests.gateway.house import House


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = await House(tmp_path, webhook_allow=CALLBACKS).open()
    yield made
    await made.close()
