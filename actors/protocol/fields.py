"""The small types that frames and resources are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from actors.protocol.defaults import MAX_SAFE_INTEGER
from actors.protocol.ids import ID_PATTERN

Id = Annotated[str, Field(pattern=ID_PATTERN, max_length=64)]
Seq = Annotated[int, Field(ge=1, le=MAX_SAFE_INTEGER)]
Count = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Data = dict[str, JsonValue]
