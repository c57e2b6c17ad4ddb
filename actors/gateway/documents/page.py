"""/docs: the two documents as one page for people. No script, no request to anywhere; it reads well without colour.

Everything that comes from a document is escaped here; a backtick pair in a text becomes code, and nothing else is
markup.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from html import escape
from typing import Any, Final

from actors.gateway.documents.style import STYLE

Json = dict[str, Any]
POLICY: Final = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
HOME: Final = """
<main class="home"><h1>Holdfast</h1>
<p class="lead">A durable-actor service for sessions. It is up.</p>
<ul class="cards">
<li><a href="/docs"><b>Documentation</b><span>every route, socket and frame, on one page</span></a></li>
<li><a href="/openapi.json"><b>openapi.json</b><span>the routes, OpenAPI 3.1</span></a></li>
<li><a href="/asyncapi.json"><b>asyncapi.json</b><span>the sockets, AsyncAPI 3.0</span></a></li>
<li><a href="/healthz"><b>Health</b><span>does the process answer?</span></a></li>
<li><a href="/readyz"><b>Readiness</b><span>is the store writable?</span></a></li>
</ul>
<h2>From a shell</h2>
<pre>holdfast session list          what there is
holdfast session tail ID       follow one
holdfast run -- COMMAND        any command as an execution</pre>
</main>"""


def _shell(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def home() -> str:
    return _shell("Holdfast", HOME)


def docs(openapi: Json, asyncapi: Json) -> str:
    return _shell("Holdfast: the API", _nav(openapi, asyncapi) + "<main>" + _body(openapi, asyncapi) + "</main>")


# ---------------------------------------------------------------- small pieces


def _text(said: Any) -> str:
    """Plain text; `code` is the only markup that it may have."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(str(said)))


def _code(said: Any) -> str:
    return f"<code>{escape(str(said))}</code>"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "") -> str:
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    if not lines:
        return ""
    top = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in head)
    return f'<div class="wide"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def _section(ident: str, title: str, body: str, lead: str = "") -> str:
    said = f'<p class="lead">{_text(lead)}</p>' if lead else ""
    return (
        f'<section id="{escape(ident)}"><h2><a href="#{escape(ident)}">{escape(title)}</a></h2>{said}{body}</section>'
    )


def _last(reference: str) -> str:
    return reference.rsplit("/", 1)[-1]


def _follow(document: Json, reference: str) -> Json:
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return dict(found)


def _kind(schema: Json) -> str:
    """A schema in words."""
    if "$ref" in schema:
        name = _last(schema["$ref"])
        return "any JSON" if name == "JsonValue" else f'<a href="#shape-{escape(name)}">{escape(name)}</a>'
    if "const" in schema:
        return _code(schema["const"])
    if "enum" in schema:
        return " or ".join(_code(one) for one in schema["enum"])
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(dict.fromkeys(_kind(one) for one in schema.get("anyOf") or schema["oneOf"]))
    kind = schema.get("type")
    if kind == "array":
        most = f' <span class="dim">(at most {schema["maxItems"]})</span>' if "maxItems" in schema else ""
        return f"list of {_kind(schema.get('items', {}))}{most}"
    if kind == "object":
        inner = schema.get("additionalProperties") or next(iter(schema.get("patternProperties", {}).values()), None)
        return f"map of {_kind(inner)}" if isinstance(inner, dict) and inner else "object"
    plain = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "null": "null"}
    words = plain.get(str(kind), "any JSON")
    pairs = (("minLength", "maxLength"), ("minimum", "maximum"), ("exclusiveMinimum", "maximum"))
    return words + next((b for pair in pairs if (b := _bounds(schema, pair))), "")


def _bounds(schema: Json, names: tuple[str, str]) -> str:
    low, high = schema.get(names[0]), schema.get(names[1])
    if high is not None and high >= 1 << 53:
        high = None
    if low is None and high is None:
        return ""
    if names[0].startswith("min") and names[0] != "minimum":  # a length
        said = f"up to {high:g}" if not low else f"{low:g} to {high:g}" if high is not None else f"at least {low:g}"
    else:
        sign = "&gt;" if names[0].startswith("exclusive") else "≥"
        said = ", ".join(p for p in (f"{sign} {low:g}" if low is not None else "", f"≤ {high:g}" if high else "") if p)
    return f'<span class="dim">, {said}</span>'


def _fields(schema: Json) -> str:
    required = set(schema.get("required", ()))
    rows = []
    for name, inner in schema.get("properties", {}).items():
        mark = "" if name in required else ' <span class="dim">optional</span>'
        default = inner.get("default")
        said = f' <span class="dim">default {_code(_json(default))}</span>' if default not in (None, {}, []) else ""
        rows.append((_code(name) + mark, _kind(inner) + said))
    return _table(("field", "is"), rows, "fields") or '<p class="dim">no fields</p>'


def _json(value: Any) -> str:
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


# ---------------------------------------------------------------- the page


def _nav(openapi: Json, asyncapi: Json) -> str:
    groups = []
    for tag in openapi["tags"]:
        links = "".join(
            f'<li><a href="#{escape(o["operationId"])}"><i class="{method}">{method}</i>{escape(_short(path))}</a></li>'
            for method, path, o in _operations(openapi, tag["name"])
        )
        groups.append(f'<h3><a href="#{escape(tag["name"])}">{escape(tag["name"])}</a></h3><ul>{links}</ul>')
    sockets = "".join(
        f'<li><a href="#socket-{escape(name)}"><i class="ws">ws</i>{escape(name)}</a></li>'
        for name in asyncapi["channels"]
    )
    tables = (("errors", "Errors"), ("event-types", "Events"), ("causes", "Causes"), ("close-codes", "Close codes"))
    rest = "".join(f'<li><a href="#{i}">{t}</a></li>' for i, t in (*tables, ("shapes", "Shapes")))
    return (
        '<nav aria-label="Contents"><a class="brand" href="/">Holdfast</a>'
        f"{''.join(groups)}<h3>sockets</h3><ul>{sockets}</ul><h3>tables</h3><ul>{rest}</ul></nav>"
    )


def _short(path: str) -> str:
    return path.removeprefix("/v1/sessions/{sid}/") if path.count("/") > 3 else path


def _operations(openapi: Json, tag: str) -> list[tuple[str, str, Json]]:
    return [
        (method, path, operation)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
        if tag in operation["tags"]
    ]


def _body(openapi: Json, asyncapi: Json) -> str:
    parts = [
        "<header><h1>Holdfast</h1>"
        f'<p class="lead">{_text(openapi["info"]["description"])}</p>'
        f'<p class="chips"><span>protocol {escape(openapi["info"]["version"])}</span>'
        '<a href="/openapi.json">openapi.json</a><a href="/asyncapi.json">asyncapi.json</a></p></header>'
    ]
    for tag in openapi["tags"]:
        shown = "".join(_operation(*found) for found in _operations(openapi, tag["name"]))
        parts.append(_section(tag["name"], tag["name"].capitalize(), shown, tag["description"]))
    sockets = "".join(_socket(asyncapi, name) for name in asyncapi["channels"])
    parts.append(_section("sockets", "Sockets", sockets, asyncapi["info"]["description"]))
    parts += _tables(openapi, asyncapi)
    shapes = openapi["components"]["schemas"] | asyncapi["components"]["schemas"]
    messages = {_last(m["payload"]["$ref"]) for m in asyncapi["components"]["messages"].values()}
    parts.append(
        _section(
            "shapes",
            "Shapes",
            "".join(_shape(name, s) for name, s in sorted(shapes.items()) if name not in messages),
            "What bodies, answers and frames are made of. A field that is not marked optional is always there.",
        )
    )
    return "".join(parts)


def _operation(method: str, path: str, operation: Json) -> str:
    said = f"<p>{_text(operation['description'])}</p>" if "description" in operation else ""
    scopes = operation.get("x-scopes")
    who = "token of scope " + ", ".join(_code(s) for s in scopes) if scopes else "anybody, without a token"
    if {"ticket": []} in operation["security"]:
        who += "; or a <code>ticket</code>"
    facts = [("who", who)]
    if "requestBody" in operation:
        facts.append(("body", _kind(operation["requestBody"]["content"]["application/json"]["schema"])))
    if "x-channel" in operation:
        name = _last(operation["x-channel"])
        facts.append(("socket", f'<a href="#socket-{escape(name)}">{escape(name)}</a>'))
    params = _table(
        ("parameter", "is", ""),
        ((_code(p["name"]) + _where(p), _kind(p["schema"]), _text(p["description"])) for p in _asked(operation)),
    )
    problems: list[str] = []
    for status, response in operation["responses"].items():
        content = response.get("content", {})
        if "application/problem+json" in content:
            codes = content["application/problem+json"]["schema"]["allOf"][1]["properties"]["code"]["enum"]
            problems += [f'<li><a href="#error-{escape(c)}"><b>{status}</b> {escape(c)}</a></li>' for c in codes]
            continue
        kind = next(iter(content), None)
        shown = "" if kind is None else _kind(content[kind]["schema"]) if kind == "application/json" else _code(kind)
        if shown == "object":
            shown = _code(kind)
        facts.append((f"<b>{status}</b>", " – ".join(p for p in (shown, _text(response["description"])) if p)))
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    ident = escape(operation["operationId"])
    count = f"{len(problems)} problem code{'s' if len(problems) != 1 else ''}"
    return (
        f'<article id="{ident}"><h3><i class="{method}">{method.upper()}</i>'
        f'<a href="#{ident}"><code>{escape(path)}</code></a></h3><p class="does">{_text(operation["summary"])}</p>'
        f"{said}<dl>{listed}</dl>{params}"
        f'<details><summary>{count}</summary><ul class="codes">{"".join(problems)}</ul></details>'
        "</article>"
    )


def _asked(operation: Json) -> list[Json]:
    return [p for p in operation.get("parameters", ()) if p["in"] != "path"]


def _where(param: Json) -> str:
    return ' <span class="dim">header</span>' if param["in"] == "header" else ""


def _socket(asyncapi: Json, name: str) -> str:
    channel = asyncapi["channels"][name]
    shown = ""
    for action, title in (("receive", "Frames that Holdfast takes"), ("send", "Frames that Holdfast sends")):
        operation = asyncapi["operations"].get(f"{name}_{action}")
        if operation is None:
            continue
        shown += f"<h4>{title}</h4>"
        for link in operation["messages"]:
            message = asyncapi["components"]["messages"][_last(link["$ref"])]
            schema = _follow(asyncapi, message["payload"]["$ref"])
            properties = {k: v for k, v in schema["properties"].items() if k not in ("type", "kind")}
            said = message.get("summary") or schema.get("description") or ""
            shown += (
                f"<details{_anchor(asyncapi, name, _last(link['$ref']))}>"
                f"<summary><code>{escape(message['name'])}</code> "
                f'<span class="dim">{_text(said) or ", ".join(map(escape, properties))}</span></summary>'
                f"{_fields({**schema, 'properties': properties})}</details>"
            )
    codes = ", ".join(f'<a href="#close-{code}">{code}</a>' for code in channel["x-close-codes"])
    ident = f"socket-{escape(name)}"
    return (
        f'<article id="{ident}"><h3><i class="ws">WS</i><a href="#{ident}"><code>{escape(channel["address"])}</code>'
        f'</a></h3><p class="does">{_text(channel["title"])}</p><p>{_text(channel["description"])}</p>{shown}'
        f"<dl><dt>may close with</dt><dd>{codes}</dd></dl></article>"
    )


def _anchor(asyncapi: Json, channel: str, message: str) -> str:
    """A frame that several sockets have is found at the first of them."""
    first = next(name for name, of in asyncapi["channels"].items() if message in of["messages"])
    return f' id="frame-{escape(message)}"' if first == channel else ""


def _tables(openapi: Json, asyncapi: Json) -> list[str]:
    errors = (
        (f'<b id="error-{escape(c)}">{row["status"]}</b>', _code(c), _text(row["title"]), _text(row["hint"]))
        for c, row in openapi["x-error-codes"].items()
    )
    events = ((_code(t), _text(row["when"]), _kind(row["data"])) for t, row in asyncapi["x-event-types"].items())
    of_nodes = ((_code(t), _text(row["when"]), _kind(row["data"])) for t, row in asyncapi["x-node-event-types"].items())
    closes = (
        (
            f'<b id="close-{row["code"]}">{row["code"]}</b>',
            _code(row["name"]),
            _text(row["when"]),
            _text(row["reconnect"]),
        )
        for row in asyncapi["x-close-codes"]
    )
    causes = ((_code(cause), _text(means)) for cause, means in asyncapi["x-causes"].items())
    return [
        _section("errors", "Errors", _table(("status", "code", "means", "what to do"), errors)),
        _section("event-types", "Events", _table(("type", "when", "data"), events), "Those that Holdfast writes."),
        _section(
            "node-event-types", "Events of nodes", _table(("type", "when", "data"), of_nodes), "In a node's own log."
        ),
        _section("causes", "Causes", _table(("cause", "means"), causes), "Why an execution failed."),
        _section("close-codes", "Close codes", _table(("code", "name", "when", "reconnect?"), closes)),
    ]


def _shape(name: str, schema: Json) -> str:
    said = f"<p>{_text(schema['description'])}</p>" if "description" in schema else ""
    fields = _fields(schema) if "properties" in schema or schema.get("type") == "object" else ""
    ident = f"shape-{escape(name)}"
    head = f'<h3><a href="#{ident}">{escape(name)}</a></h3>'
    return f'<article class="shape" id="{ident}">{head}{said}{fields}</article>'
