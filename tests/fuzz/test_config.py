"""Any TOML, any environment, any flags: settings that hold together, or sentences that say which one is wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.config import GRACE_FLOOR_S, PREFIX, ConfigError, Settings, is_loopback, load
from tests.fuzz.budget import budget

FIELDS = tuple(Settings.model_fields)
words = st.text(max_size=12) | st.sampled_from(
    ["", "0", "-1", "off", "nan", "inf", "1e400", "true", "dedicated", "shared:0", "shared:4", "shared:99999", "::1",
     "127.0.0.1", "0.0.0.0", "localhost", "sqlite:///x.db", "sqlite:///", "postgres://h/d", "http://a", "http://[::1",
     "https://a:1,https://b", "http://a:x", "*", "10.0.0.0/8", ".example.org", "stale_only", "~root/x",
     "~nobody-here/x", "a\0b", "9" * 400, "\ud800"]
)  # fmt: skip
scalars = st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | words
anything = scalars | st.lists(scalars, max_size=3) | st.dictionaries(words, scalars, max_size=2)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        yield Path(name)


def sound(settings: Settings) -> None:
    """What the rest of the service takes for granted."""
    assert settings.allow_short_grace or settings.grace_s >= GRACE_FLOOR_S
    assert settings.allow_short_grace or settings.stale_s >= 2 * settings.heartbeat_s
    assert settings.insecure or is_loopback(settings.host)
    assert settings.data_dir.is_absolute() and 0 <= settings.port <= 65535
    assert settings.cells is None or 1 <= settings.cells <= 9999
    limits = settings.policy().limits.as_dict()
    assert all(value is None or 0 < value <= 10 * 365 * 86400 for value in limits.values()), limits
    assert isinstance(settings.store_path, Path)
    assert Settings.from_json(settings.to_json()).model_dump() == settings.model_dump()  # as it travels to an actor


def judged(**given: Any) -> Settings | None:
    settings, problems = None, ()
    try:
        settings = load(**given)
    except ConfigError as error:
        problems = error.problems
    if settings is None:
        assert problems and all(problem.strip() and problem.encode("utf-8", "surrogateescape") for problem in problems)
    else:
        sound(settings)
    return settings


@given(st.binary(max_size=60))
@example(b"grace_s = 1e999")
@example(b"host = '\xff'")
@example(b"[a]\n" * 3)
@example(b"x = " + b"[" * 5000)
@budget(150)
def test_any_bytes_as_a_file(folder: Path, raw: bytes) -> None:
    path = folder / "any.toml"
    path.write_bytes(raw)
    judged(config=path, environ={})


def toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case dict():
            return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
        case _:
            return str(value)


@given(st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4), st.sampled_from(["", "grace", "hosts"]))
@budget(250)
def test_any_values_in_a_file(folder: Path, values: dict[str, Any], unknown: str) -> None:
    path = folder / "values.toml"
    lines = [f"{name} = {toml(value)}" for name, value in values.items()] + ([f"{unknown} = 1"] if unknown else [])
    path.write_text("\n".join(lines), "utf-8")
    settings = judged(config=path, environ={})
    assert settings is None or not unknown


@given(
    st.dictionaries(st.sampled_from(FIELDS), words, max_size=4), st.dictionaries(st.text(max_size=8), words, max_size=1)
)
@budget(250)
def test_any_environment(folder: Path, values: dict[str, str], more: dict[str, str]) -> None:
    environ = {PREFIX + name.upper(): value for name, value in values.items()}
    environ |= {PREFIX + name: value for name, value in more.items()}
    environ.setdefault("HOLDFAST_DATA_DIR", str(folder))
    environ.pop("HOLDFAST_CONFIG", None)
    judged(environ=environ)


@given(st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4))
@example({"grace_s": 1.0})
@example({"stale_s": 1.0})
@example({"data_dir": "~nobody-here/x"})
@example({"data_dir": "a\0b"})
@example({"data_dir": "x" * 5000})
@budget(250)
def test_any_flags(folder: Path, flags: dict[str, Any]) -> None:
    judged(flags=flags, environ={"HOLDFAST_DATA_DIR": str(folder)})
