"""The generated blocks of the documents: name → markdown. Made from the code's own tables, never written by hand.

What a table does not say for itself (what `nack gap` means, why a setting without a constant is as it is) is said
here, once; a name that is missing here or stands here in vain is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from actors.config import CLIENT_PREFIXES, CLIENT_VARIABLES, PREFIX, Settings
from actors.law.execution import TRANSITIONS
from actors.protocol import codes, defaults, frames
from actors.protocol.words import CLOSE_WHEN, COMMANDS, DIRECTIVES, GAPS, NACKS, RECONNECT
from tests.docs import asked, node_tables, order_tables
from wrapper.fakedevice import COMMANDS as COMMANDS_OF_FAKE
from wrapper.faults import ANYWHERE, POINTS
from wrapper.recorder import TABLE

# ---------------------------------------------------------------- words that the tables do not have

STEPS: Mapping[tuple[str, str], str] = {
    ("queued", "promote"): "no other execution is active",
    ("queued", "interrupted"): "an interrupt, an operator's `fail`, or the session is deleted",
    ("pending", "started"): "the wrapper's `started`, record 1; its ack opens the gate",
    ("pending", "interrupted"): "an interrupt: at once, and its `start` is withdrawn",
    ("pending", "failed"): "`fail_execution` with a cause, or the wrapper refused the start",
    ("running", "completed"): "the wrapper's final",
    ("running", "failed"): "the wrapper's final, or `fail_execution` with a cause",
    ("running", "interrupted"): "the wrapper's final, or any cause once an interrupt was accepted",
}
EXITS: Mapping[str, str] = {
    "EXIT_OK": "ok",
    "EXIT_FAILURE": "it failed",
    "EXIT_USAGE": "the command line is wrong",
    "EXIT_NOT_FOUND": "there is no such thing",
    "EXIT_CONFLICT": "it conflicts with what is",
    "EXIT_UNAVAILABLE": "the service or the store is not there",
    "EXIT_INTERRUPTED": "Ctrl-C",
}

# Settings whose number is a constant of defaults.py have their reason there; these have none.
SETTING_WHY: Mapping[str, str] = {
    "host": "the door is on loopback; another address needs `insecure`, because this door has no TLS",
    "data_dir": "everything that must survive stands below it; one `holdfast up` per directory",
    "store": "the SQLite file `holdfast.db` in `data_dir`; `sqlite:///FILE` names another, relative to `data_dir`",
    "session_placement": "one actor per session, or `shared:N`: N for all ([ADR 4](adr/0004-placement.md))",
    "actors_max": "session actors awake at once; without it `ACTORS_PER_CORE` (4) for each core",
    "hung_s": "off: an agent that thinks for an hour is no error; set it per session or execution",
    "max_runtime_s": "off: sessions are long-lived; set it per session or execution",
    "takeover": "the newest connection owns at once; `stale_only`: only after the owner was silent for the threshold",
    "takeover_threshold_s": "six missed heartbeats; used by `stale_only` alone",
    "allowed_origins": "exact origins whose pages may connect, with commas, ours behind a proxy too; our address may",
    "webhook_allow": "hosts (`hooks.example.org`), suffixes (`.example.org`), networks (`10.0.0.0/8`), `*` for every "
    "public address; comma-separated. None: every public address and no other ([webhooks](operations.md#webhooks))",
    "node_commands": "which of their declared commands nodes may be asked, comma-separated; `device.*`: every one that "
    "begins so; a node's own `allow` narrows it",
    "objects_dir": "where uploaded objects are checked by size and sha256; none: the device's word is taken, and its "
    "task says so",
    "limit_loopback": "rates and connection limits hold for loopback peers too: say so behind a proxy on this host",
    "metrics_open": "`/metrics` without a token for loopback peers; behind a proxy on this host that is everybody",
    "log_level": "from which level on happenings are logged; never a payload, at any level",
    "insecure": "allows a `host` that is not loopback, for a network that is trusted",
    "allow_short_grace": "for tests: skips the check of `grace_s` and `stale_s` against what a wrapper can meet",
}
CLIENT_WHY: Mapping[str, str] = {
    "URL": "where the service is, for commands of operators and wrappers",
    "TOKEN": "the token; never passed on to the agent",
    "TOKEN_FILE": "a file that holds the token; never passed on to the agent",
    "CONFIG": "the TOML file to read instead of `holdfast.toml` in the data directory",
    "INPUT": "set for the agent: the execution's input, up to 96 KiB",
    "INPUT_FILE": "set for the agent: a file that holds the input, whatever its size",
    "SESSION": "the session that `holdfast-wrapper` serves",
    "SESSION_ID": "set for the agent: its session",
    "EXECUTION_ID": "set for the agent: its execution",
    "ENROLMENT_CODE": "the one-time code of `holdfast node join`; else it is read from stdin",
}


PREFIX_WHY: Mapping[str, str] = {
    "EVENTS": "free for agents and scripts; never read here",
    "SPOOL_": "of `holdfast-wrapper`: `HOLDFAST_SPOOL_DIR`",
}


def words(kinds: Any, said: Mapping[Any, str]) -> list[tuple[str, str]]:
    """The members of a Literal with their words. Raises ValueError when the two differ."""
    if set(get_args(kinds)) != set(said):
        raise ValueError(f"words for {sorted(set(get_args(kinds)) ^ set(said))}")
    return [(f"`{kind}`", said[kind]) for kind in get_args(kinds)]


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


# ---------------------------------------------------------------- protocol.md


def close_codes() -> str:
    if set(CLOSE_WHEN) != set(codes.CLOSE_CODES):
        raise ValueError("CLOSE_WHEN and CLOSE_CODES differ")
    return table(
        ("code", "name", "when", "reconnect?"),
        ((c.code, f"`{c.name}`", CLOSE_WHEN[c.code], RECONNECT[c.reconnect]) for c in codes.CLOSE_CODES.values()),
    )


def causes() -> str:
    return table(("cause", "means"), ((f"`{cause}`", why) for cause, why in codes.CAUSES.items()))


def event_types() -> str:
    return table(("type", "when"), ((f"`{name}`", when) for name, when in codes.EVENT_TYPES.items()))


def error_codes() -> str:
    return table(
        ("code", "status", "title", "try again?", "hint"),
        (
            (f"`{e.code}`", e.status, e.title, "yes" if e.retryable else "no", e.hint.replace("<", "&lt;"))
            for e in codes.ERRORS.values()
        ),
    )


def exit_codes() -> str:
    if {n for n in vars(codes) if n.startswith("EXIT_")} != set(EXITS):
        raise ValueError("EXITS and the EXIT_ codes differ")
    return table(("code", "means"), ((getattr(codes, name), means) for name, means in EXITS.items()))


def frames_from_wrapper() -> str:
    return _frames(get_args(get_args(frames.FromWrapper)[0]))


def frames_to_wrapper() -> str:
    commands = get_args(get_args(frames.Command)[0])
    return _frames((frames.HelloAck, frames.Ack, frames.Nack, *commands, frames.Error))


def frames_of_stream() -> str:
    return _frames(get_args(get_args(frames.StreamFrame)[0]))


def _frames(models: Iterable[type[BaseModel]]) -> str:
    rows = []
    for model in models:
        fields = dict(model.model_fields)
        name = get_args(fields.pop("type").annotation)[0]
        if name == "command":
            name = f"command, kind {get_args(fields.pop('kind').annotation)[0]}"
        shown = (
            f"`{field}{'' if info.is_required() else '?'}`: {_kind(info.annotation)}" for field, info in fields.items()
        )
        rows.append((f"`{name}`", ", ".join(shown) or "–"))
    return table(("frame", "fields (? may be absent)"), rows)


_PLAIN: Mapping[Any, str] = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null"}


def _kind(kind: Any) -> str:
    """A type in words: `list of event`, `integer or null`."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"{{{', '.join(kind.model_fields)}}}"
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in inside)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_kind(one) for one in inside))
    if origin is list:
        return f"list of {_kind(inside[0])}"
    if origin is dict:
        return "object"
    if hasattr(kind, "__metadata__"):  # Annotated: its limits are in /asyncapi.json
        return _kind(kind.__origin__)
    return "any JSON"


# ---------------------------------------------------------------- configuration.md

UNITS: Mapping[str, str] = {"_per_s": "a second", "_s": "seconds", "_bytes": "bytes"}


def unit(name: str) -> str:
    return next((u for ending, u in UNITS.items() if name.lower().endswith(ending)), "")


def constant_of(name: str) -> str | None:
    """The constant that a setting's default is; None: it has words of its own here."""
    return name.upper() if name.upper() in defaults.REASONS else None


def settings() -> str:
    spare = set(SETTING_WHY) - set(Settings.model_fields)
    if spare:
        raise ValueError(f"there is no setting {sorted(spare)}")
    rows = []
    for name, field in Settings.model_fields.items():
        constant = constant_of(name)
        why = defaults.REASONS[constant] if constant else SETTING_WHY[name]
        if constant and getattr(defaults, constant) != field.default:
            raise ValueError(f"{name} does not default to {constant}")
        rows.append((f"`{name}`", _shown(field.default, "off" if unit(name) else "none"), unit(name), why))
    return table(("setting", "default", "unit", "reason"), rows)


def constants() -> str:
    named = {name for name in vars(defaults) if name.isupper() and name != "REASONS"}
    if named != set(defaults.REASONS):
        raise ValueError(f"reasons for {sorted(named ^ set(defaults.REASONS))}")
    fixed = [name for name in defaults.REASONS if name.lower() not in Settings.model_fields]
    rows = ((f"`{n}`", _shown(getattr(defaults, n)), unit(n), defaults.REASONS[n]) for n in fixed)
    return table(("constant", "value", "unit", "reason"), rows)


def client_variables() -> str:
    if set(CLIENT_WHY) != CLIENT_VARIABLES:
        raise ValueError(f"words for {sorted(set(CLIENT_WHY) ^ CLIENT_VARIABLES)}")
    rows = [(f"`{PREFIX}{name}`", why) for name, why in CLIENT_WHY.items()]
    if set(PREFIX_WHY) != set(CLIENT_PREFIXES):
        raise ValueError(f"words for {sorted(set(PREFIX_WHY) ^ set(CLIENT_PREFIXES))}")
    rows += [(f"`{PREFIX}{prefix}…`", PREFIX_WHY[prefix]) for prefix in CLIENT_PREFIXES]
    return table(("variable", "means"), rows)


def _shown(value: Any, off: str = "none") -> str:
    if value is None:
        return off
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value) or "none"
    if isinstance(value, float):
        return f"{value:.10g}"
    return f"`{value}`" if not isinstance(value, int) else str(value)


# ---------------------------------------------------------------- diagrams


def execution_diagram() -> str:
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR", "    [*] --> queued : submit"]
    lines += [f"    {before} --> {after} : {step}" for (before, step), after in TRANSITIONS.items()]
    lines += [f"    {status} --> [*]" for status in codes.STATUSES if status in codes.TERMINAL]
    return "\n".join([*lines, "```"])


def execution_steps() -> str:
    if set(STEPS) != set(TRANSITIONS):
        raise ValueError("STEPS and TRANSITIONS differ")
    rows = ((f"`{before}`", step, STEPS[before, step], f"`{after}`") for (before, step), after in TRANSITIONS.items())
    return table(("from", "step", "because", "to"), rows)


def link_diagram() -> str:
    arrows: dict[str, None] = {"    [*] --> offline : create": None}
    for moved in asked.link_moves():
        if moved.after != moved.before or moved.appended:
            arrows[f"    {moved.before} --> {moved.after} : {moved.event}"] = None
    return "\n".join(["```mermaid", "stateDiagram-v2", *arrows, "    deleted --> [*]", "```"])


def link_moves() -> str:
    """One line per event; a cell says what becomes of that link, with no execution and with a running one."""
    cells: dict[str, dict[str, list[str]]] = {}
    for moved in asked.link_moves():
        cells.setdefault(moved.event, {}).setdefault(moved.before, []).append(_moved(moved))
    rows = []
    for event, by_link in cells.items():
        shown = (idle if idle == running else f"idle: {idle}; running: {running}" for idle, running in by_link.values())
        rows.append((event, *shown))
    return table(("what happens", *(f"link `{link}`" for link in asked.LINKS)), rows)


def _moved(moved: asked.Moved) -> str:
    if moved.answer.startswith("refused"):
        return moved.answer
    if moved.after == moved.before and not moved.appended:
        return "–"
    return f"→ `{moved.after}`" + "".join(f", {event}" for event in moved.appended)


def link_events() -> str:
    return table(("name", "means"), ((name, means) for name, (means, _) in asked.LINK_EVENTS.items()))


def reconciliation() -> str:
    rows = [(says, *(asked.reconciled(says, knows) for knows in asked.KNOWS)) for says in asked.SAYS]
    return table(("the wrapper says of E", *(f"server: {knows}" for knows in asked.KNOWS)), rows)


# ---------------------------------------------------------------- the fake device


def fake_recorder() -> str:
    does = {"open": "a recording begins", "keep": "it is kept for upload", "drop": "it is thrown away", None: ""}
    rows = ((f"`{was}`", f"`{action}`", f"`{now}`", does[deed]) for (was, action), (now, deed) in TABLE.items())
    return table(("state", "order", "then", "and"), rows)


def fault_points() -> str:
    rows = []
    for name, (when, own) in POINTS.items():
        rows.append((f"`{name}`", when, "; ".join(f"`{action}`: {what}" for action, what in own.items())))
    return table(("point", "when", "there only"), rows)


# ---------------------------------------------------------------- all of them

BLOCKS: Mapping[str, Callable[[], str]] = {
    "close-codes": close_codes,
    "causes": causes,
    "event-types": event_types,
    "error-codes": error_codes,
    "exit-codes": exit_codes,
    "nack-codes": lambda: table(("code", "means"), words(codes.NackCode, NACKS)),
    "directives": lambda: table(("directive", "means"), words(codes.Directive, DIRECTIVES)),
    "command-kinds": lambda: table(("kind", "means"), words(codes.CommandKind, COMMANDS)),
    "gap-reasons": lambda: table(("reason", "means"), words(codes.GapReason, GAPS)),
    "frames-from-wrapper": frames_from_wrapper,
    "frames-to-wrapper": frames_to_wrapper,
    "frames-of-stream": frames_of_stream,
    "settings": settings,
    "constants": constants,
    "client-variables": client_variables,
    "execution-diagram": execution_diagram,
    "execution-steps": execution_steps,
    "link-diagram": link_diagram,
    "link-events": link_events,
    "link-moves": link_moves,
    "reconciliation": reconciliation,
    **node_tables.blocks(table, _frames),
    **order_tables.blocks(table),
    "fake-commands": lambda: table(("command", "does"), ((f"`{n}`", what) for n, what in COMMANDS_OF_FAKE.items())),
    "fake-recorder": fake_recorder,
    "fault-points": fault_points,
    "fault-actions": lambda: table(("action", "is"), ((f"`{n}`", what) for n, what in ANYWHERE.items())),
}
