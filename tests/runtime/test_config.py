"""Settings: who wins, what is refused, and how kindly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actors.config import ConfigError, Settings, load
from actors.protocol import defaults


def problems(**kw: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(**{"environ": {}, **kw})  # type: ignore[arg-type]
    return caught.value.problems


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    (tmp_path / "holdfast.toml").write_text("port = 1\npending_s = 7\nhung_s = 9\n")
    env = {"HOLDFAST_PORT": "2", "HOLDFAST_PENDING_S": "8", "HOLDFAST_DATA_DIR": str(tmp_path)}
    settings = load({"port": 3, "host": None}, environ=env)
    assert (settings.port, settings.pending_s, settings.hung_s, settings.host) == (3, 8.0, 9.0, "127.0.0.1")
    assert [settings.origin_of(name) for name in ("port", "pending_s", "hung_s", "host")] == [
        "flag",
        "HOLDFAST_PENDING_S",
        str(tmp_path / "holdfast.toml"),
        "default",
    ]


def test_an_unknown_key_is_an_error_that_says_what_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("grace = 60\n")
    assert problems(config=file) == (f"{file}: there is no setting 'grace'; did you mean grace_s?",)
    assert problems(environ={"HOLDFAST_GRACES": "1"}) == (
        "there is no variable HOLDFAST_GRACES; did you mean HOLDFAST_GRACE_S?",
    )


@pytest.mark.parametrize(
    "name", ["URL", "TOKEN", "TOKEN_FILE", "INPUT", "SESSION_ID", "EXECUTION_ID", "EVENTS", "EVENTS_FD", "SPOOL_DIR"]
)
def test_variables_of_clients_wrappers_and_agents_are_no_mistakes(name: str) -> None:
    assert load(environ={f"HOLDFAST_{name}": "x"}).port == defaults.PORT


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert "No such file" in problems(config=tmp_path / "nope.toml")[0]


def test_a_grace_that_no_wrapper_can_meet_is_refused_unless_allowed() -> None:
    assert "grace_s is 5 s, but a wrapper may need 30 s" in problems(flags={"grace_s": 5})[0]
    assert load({"grace_s": 5, "allow_short_grace": True}, environ={}).grace_s == 5
    assert load(environ={}).grace_s == defaults.GRACE_S


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"host": "0.0.0.0"}, "not a loopback address"),
        ({"store": "postgresql://db/x"}, "not there yet"),
        ({"store": "/x.db"}, "not a store URL"),
        ({"session_placement": "shared:0"}, "no placement"),
        ({"allowed_origins": "https://a.example/x"}, "not an origin"),
        ({"stale_s": 15}, "less than two heartbeats"),
        ({"tick_s": 4}, "fall behind"),
        ({"port": 70000}, "65535"),
        ({"window_bytes": -1}, "greater than"),
    ],
)
def test_what_cannot_work_is_refused_at_start(flags: dict[str, object], said: str) -> None:
    assert said in problems(flags=flags)[0]


def test_off_turns_a_limit_off() -> None:
    assert load({"hung_s": "off"}, environ={}).policy().limits.hung_s is None
    assert load({"hung_s": "90"}, environ={}).policy().limits.hung_s == 90


def test_settings_travel_whole_and_read_nothing_on_the_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, allowed_origins=("https://a.example",), session_placement="shared:4")
    monkeypatch.setenv("HOLDFAST_PORT", "1")
    assert Settings.from_json(settings.to_json()) == settings
    assert settings.cells == 4
    assert settings.store_path == tmp_path / "holdfast.db"


@pytest.mark.parametrize(("said", "awake"), [({}, 12), ({"actors_max": 0}, 0), ({"actors_max": 100}, 100)])
def test_as_many_actors_are_awake_as_the_cores_bear_unless_it_is_said(
    said: dict[str, int], awake: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5})
    assert Settings(**said).awake_max == awake  # type: ignore[arg-type]
