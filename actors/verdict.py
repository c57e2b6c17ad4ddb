"""`holdfast check`: histories from files, the judge's verdict on stdout, an exit code. It decides nothing itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from actors import show
from actors.history import CODES, Anomaly, Observation, Unreadable, check, read
from actors.protocol.codes import EXIT_FAILURE, EXIT_OK, EXIT_USAGE

SHOWN = 240  # characters of a line of evidence, for people; --json has all of it


def give(files: Sequence[str], *, as_json: bool) -> int:
    try:
        observations = read(files)
    except Unreadable as error:
        show.say(f"holdfast: {error}")
        return EXIT_USAGE
    if not observations:  # a path that was mistyped in a script must not look like a clean run
        show.say("holdfast: there is not one observation in these files")
        return EXIT_USAGE
    found = check(observations)
    counted = dict(sorted(Counter(a.code for a in found).items()))
    told = {"observations": len(observations), "codes": counted, "anomalies": [a.as_dict() for a in found]}
    show.data(told, as_json, text(len(observations), found))
    if unjudged := without_a_dump(observations):
        names = show.printable(", ".join(unjudged[:5])) + (f" and {len(unjudged) - 5} more" if unjudged[5:] else "")
        show.say(f"holdfast: no reader was compared with what is stored, for want of a `session` line, in {names}")
    return EXIT_FAILURE if found else EXIT_OK


def without_a_dump(observations: Sequence[Observation]) -> list[str]:
    """Sessions with `stored` lines and no `session` line: half a dump, which must not look like a clean whole one."""
    told = {what: {o["session"] for o in observations if o.what == what} for what in ("stored", "session")}
    return sorted(told["stored"] - told["session"])


def text(observations: int, found: Sequence[Anomaly]) -> str:
    lines = []
    for anomaly in found:
        lines.append(f"{anomaly.code}: {anomaly.sentence}")
        lines += [f"    {o.source}  {json.dumps(dict(o.said), ensure_ascii=False)[:SHOWN]}" for o in anomaly.evidence]
    for code in sorted({a.code for a in found}):
        lines.append(f"{code} means: {CODES[code]}")
    lines.append(f"{observations} observations: " + (f"{len(found)} anomalies" if found else "clean"))
    return "\n".join(lines)
