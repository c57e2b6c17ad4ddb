"""Every setting, once: one frozen model, checked once, relations included.

Flags win over HOLDFAST_* variables, which win over the TOML file, which wins over defaults (with their reasons in
protocol/defaults.py). A name that nobody knows is an error that says what was probably meant. `Settings(...)` itself
reads nothing from the surroundings, so a test or an actor gets exactly what it passes; `load` reads the surroundings.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from actors.law.model import Limits, Policy
from actors.protocol import defaults

PREFIX = "HOLDFAST_"
HOST_ENTRY = r"(\*?\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
COMMAND_ENTRY = r"\*|[A-Za-z0-9][A-Za-z0-9_.:/-]{0,126}\*?"
# Variables of clients, wrappers and agents: not ours, but no mistakes either.
CLIENT_VARIABLES = frozenset(
    {"URL", "TOKEN", "TOKEN_FILE", "CONFIG", "INPUT", "INPUT_FILE", "SESSION", "SESSION_ID", "EXECUTION_ID"}
    | {"ENROLMENT_CODE"}
)
CLIENT_PREFIXES = ("EVENTS", "SPOOL_")
# What the wrapper needs to come back in: its silence limit or its longest pause, then a connect; and a margin for a
# loaded host. See REASONS["GRACE_S"].
GRACE_MARGIN_S = 10.0
GRACE_FLOOR_S = (
    max(defaults.WRAPPER_PING_S + defaults.WRAPPER_PONG_S, defaults.BACKOFF_S[-1])
    + defaults.CONNECT_TIMEOUT_S
    + GRACE_MARGIN_S
)

Positive = Annotated[float, Field(gt=0, le=10 * 365 * 86400)]


class ConfigError(ValueError):
    """The configuration cannot be used. `problems`: one sentence each, for people."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class Settings(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX)

    host: str = "127.0.0.1"
    port: int = Field(default=defaults.PORT, ge=0, le=65535)
    data_dir: Path = Path("~/.local/share/holdfast")
    store: str | None = None
    session_placement: str = "dedicated"
    hibernate_after_s: Positive = defaults.HIBERNATE_AFTER_S
    actors_max: int | None = Field(default=None, ge=0, le=100_000)
    pending_s: Positive = defaults.PENDING_S
    stale_s: Positive = defaults.STALE_S
    grace_s: Positive = defaults.GRACE_S
    hung_s: Positive | None = None
    max_runtime_s: Positive | None = None
    interrupt_s: Positive = defaults.INTERRUPT_S
    heartbeat_s: Positive = defaults.HEARTBEAT_S
    server_ping_s: Positive = defaults.SERVER_PING_S
    server_pong_s: Positive = defaults.SERVER_PONG_S
    retention_s: Positive = defaults.RETENTION_S
    audit_retention_s: Positive = defaults.AUDIT_RETENTION_S
    takeover: Literal["latest_wins", "stale_only"] = "latest_wins"
    takeover_threshold_s: Positive = 60.0
    max_frame_bytes: int = Field(default=defaults.MAX_FRAME_BYTES, ge=4096, le=64 << 20)
    window_bytes: int = Field(default=defaults.WINDOW_BYTES, ge=4096, le=64 << 20)
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    webhook_allow: Annotated[tuple[str, ...], NoDecode] = ()
    node_commands: Annotated[tuple[str, ...], NoDecode] = ("*",)
    objects_dir: Path | None = None
    requests_per_s: float = Field(default=defaults.REQUESTS_PER_S, ge=0, allow_inf_nan=False)
    frames_per_s: float = Field(default=defaults.FRAMES_PER_S, ge=0, allow_inf_nan=False)
    bytes_per_s: int = Field(default=defaults.BYTES_PER_S, ge=0)
    connections_per_token: int = Field(default=defaults.CONNECTIONS_PER_TOKEN, ge=1)
    connections_per_address: int = Field(default=defaults.CONNECTIONS_PER_ADDRESS, ge=1)
    limit_loopback: bool = False  # the five above for loopback peers too
    metrics_open: bool = False  # /metrics without a token, for loopback peers
    tick_s: Positive = defaults.TICK_S
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    insecure: bool = False  # a non-loopback host without TLS
    allow_short_grace: bool = False  # for tests: timings that a real wrapper could not meet

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # `load` reads the surroundings, in the open, and remembers what came from where

    @field_validator("hung_s", "max_runtime_s", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return None if value == "off" else value  # neither TOML nor an environment can say null

    @field_validator("allowed_origins", "webhook_allow", "node_commands", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("allowed_origins")
    @classmethod
    def _exact(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            parts = urlsplit(origin)
            # browsers send scheme and host in lower case, nothing behind the port: anything else would never match
            exact = origin == f"{parts.scheme}://{parts.netloc}".lower() and not set("*@ ") & set(origin)
            if parts.scheme not in ("http", "https") or not parts.netloc or not exact:
                raise ValueError(f"{origin!r} is not an origin; write scheme://host[:port] exactly, no path, no *")
        return value

    @field_validator("webhook_allow")
    @classmethod
    def _targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            if entry != "*" and network_of(entry) is None and not re.fullmatch(HOST_ENTRY, entry):
                raise ValueError(
                    f"{entry!r} is no target; write a host (hooks.example.org), a suffix (.example.org), "
                    "a network (10.0.0.0/8), or * for every public address"
                )
        return tuple(entry.lower() for entry in value)

    @field_validator("node_commands")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            if not re.fullmatch(COMMAND_ENTRY, entry):
                raise ValueError(
                    f"{entry!r} is no command pattern; write a command (device.info), the beginning of some "
                    "(device.*), or * for every command"
                )
        return value

    @field_validator("data_dir", "objects_dir")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        try:
            return None if value is None else Path(os.path.abspath(value.expanduser()))
        except RuntimeError as error:  # ~somebody who is not there
            raise ValueError(str(error)) from None

    @field_validator("store")
    @classmethod
    def _sqlite(cls, value: str | None) -> str | None:
        if value is not None and value.startswith(("postgres:", "postgresql:")):
            raise ValueError("PostgreSQL is not there yet; leave `store` out (a SQLite file in data_dir)")
        if value is not None and not re.fullmatch(r"sqlite:///.+", value):
            raise ValueError(f"{value!r} is not a store URL; write sqlite:///relative.db or sqlite:////absolute.db")
        return value

    @field_validator("session_placement")
    @classmethod
    def _placement(cls, value: str) -> str:
        if value != "dedicated" and not re.fullmatch(r"shared:[1-9][0-9]{0,3}", value):
            raise ValueError(f"{value!r} is no placement; write dedicated, or shared:N with N from 1 to 9999")
        return value

    @model_validator(mode="after")
    def _relations(self) -> Self:
        wrong: list[str] = []
        if not self.allow_short_grace:
            if self.grace_s < GRACE_FLOOR_S:
                wrong.append(
                    f"grace_s is {self.grace_s:g} s, but a wrapper may need {GRACE_FLOOR_S:g} s to come back (silence "
                    "limit or longest pause, connect timeout, margin); raise it, or set allow_short_grace (tests only)"
                )
            if self.stale_s < 2 * self.heartbeat_s:
                wrong.append(
                    f"stale_s is {self.stale_s:g} s, less than two heartbeats of {self.heartbeat_s:g} s: one lost "
                    "frame would end an execution; raise it, or set allow_short_grace (tests only)"
                )
        if self.tick_s > defaults.SERVICE_STEP_MAX_S:
            wrong.append(f"tick_s is above {defaults.SERVICE_STEP_MAX_S:g} s: service time would fall behind for ever")
        if self.bytes_per_s and self.bytes_per_s < self.max_frame_bytes:
            wrong.append(f"bytes_per_s is below max_frame_bytes ({self.max_frame_bytes}): one frame would be too much")
        if not self.insecure and not is_loopback(self.host):
            wrong.append(
                f"host {self.host!r} is not a loopback address and this door has no TLS: put a TLS proxy in front of a "
                "loopback host, or say --insecure if the network is trusted"
            )
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def store_path(self) -> Path:
        """The SQLite file; a relative URL is relative to data_dir."""
        return self.data_dir / (self.store.removeprefix("sqlite:///") if self.store else "holdfast.db")

    @property
    def cells(self) -> int | None:
        """How many shared cells; None: one actor per session."""
        return None if self.session_placement == "dedicated" else int(self.session_placement.partition(":")[2])

    @property
    def awake_max(self) -> int:
        """Session actors awake at once: by the cores that this process may use, unless it is set."""
        if self.actors_max is not None:
            return self.actors_max
        return defaults.ACTORS_PER_CORE * len(os.sched_getaffinity(0))

    def policy(self) -> Policy:
        limits = Limits(
            pending_s=self.pending_s,
            stale_s=self.stale_s,
            grace_s=self.grace_s,
            hung_s=self.hung_s,
            max_runtime_s=self.max_runtime_s,
            interrupt_s=self.interrupt_s,
        )
        return Policy(
            limits=limits,
            queue_limit=defaults.QUEUE_LIMIT,
            takeover=self.takeover,
            takeover_threshold_s=self.takeover_threshold_s,
            node_commands=self.node_commands,
        )

    def origin_of(self, name: str) -> str:
        """Where the value came from: "default", "flag", the variable's name, or the file's path."""
        return self._origins.get(name, "default")

    def to_json(self) -> str:
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Exactly what `to_json` wrote, in another process; its surroundings are not read."""
        return cls(**json.loads(text))


def network_of(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """An entry of webhook_allow as a network (a single address is one too); None: it is a name."""
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Reads flags (None: not given), environment and TOML. Raises ConfigError with every problem found."""
    environ = os.environ if environ is None else environ
    problems = unknown_variables(environ)
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    from_env = {
        name: environ[PREFIX + name.upper()] for name in Settings.model_fields if environ.get(PREFIX + name.upper())
    }
    path = config or (Path(environ["HOLDFAST_CONFIG"]) if environ.get("HOLDFAST_CONFIG") else None)
    asked_for = path is not None
    if path is None:
        data_dir = given.get("data_dir") or from_env.get("data_dir") or Settings.model_fields["data_dir"].default
        try:
            path = Path(data_dir).expanduser() / "holdfast.toml"
            asked_for = path.exists()
        except (OSError, RuntimeError, TypeError, ValueError) as error:  # no path, or none to look at
            raise ConfigError([*problems, f"data_dir: {error}"]) from error
    from_file: dict[str, Any] = {}
    if asked_for:
        try:
            from_file = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ConfigError([*problems, f"{path}: {why}"]) from error
        problems += [
            f"{path}: there is no setting {name!r}{did_you_mean(name, Settings.model_fields)}"
            for name in from_file
            if name not in Settings.model_fields
        ]
        from_file = {name: value for name, value in from_file.items() if name in Settings.model_fields}
    origins = (
        dict.fromkeys(from_file, str(path))
        | {name: PREFIX + name.upper() for name in from_env}
        | dict.fromkeys(given, "flag")
    )
    try:
        settings = Settings(**(from_file | from_env | given))
    except ValidationError as error:
        raise ConfigError(problems + _sentences(error, origins)) from error
    if problems:
        raise ConfigError(problems)
    settings._origins.update(origins)
    return settings


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = {name.upper() for name in Settings.model_fields}
    return [
        f"there is no variable {name}{did_you_mean(bare, known | CLIENT_VARIABLES, PREFIX)}"
        for name in sorted(environ)
        if name.startswith(PREFIX)
        and (bare := name.removeprefix(PREFIX)) not in known | CLIENT_VARIABLES
        and not bare.startswith(CLIENT_PREFIXES)
    ]


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _sentences(error: ValidationError, origins: Mapping[str, str]) -> list[str]:
    said = []
    for row in error.errors():
        name = ".".join(str(part) for part in row["loc"])
        message = row["msg"].removeprefix("Value error, ")
        if row["type"] == "extra_forbidden":
            message = f"there is no such setting{did_you_mean(name, Settings.model_fields)}"
        said.append(f"{name} (from {origins.get(name, 'default')}): {message}" if name else message)
    return said
