"""A node's frames, checked before anything of them is decided: the same strict JSON as everywhere, then the models of
protocol/node_frames.py. Nodes say little (a state, a result), so there is no hand-written fast path here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, get_args

from pydantic import TypeAdapter, ValidationError

from actors.gateway.decode import Beat, Wrong, lenient_loads, strict_loads
from actors.protocol import node_frames as frames
from actors.protocol.defaults import MAX_JSON_DEPTH
from actors.protocol.frames import Heartbeat
from actors.protocol.ids import valid_id

Frame = (
    frames.NodeHello | frames.InvokeResult | frames.InvokeProgress | frames.State | frames.Upload | frames.NodeLogEvent
)


@dataclass(slots=True)
class Said:
    """A valid frame of a node. size: of its text, for the bound of what is held."""

    frame: Frame
    size: int


Item = Said | Beat | Wrong

_MODELS: Final[dict[str, TypeAdapter[Any]]] = {
    get_args(model.model_fields["type"].annotation)[0]: TypeAdapter(model) for model in (*get_args(Frame), Heartbeat)
}


def decode(raw: bytes) -> Item:
    """One text frame. Never raises."""
    try:
        # one level more than a value may have: the frame itself
        frame = strict_loads(raw, MAX_JSON_DEPTH + 1)
    except ValueError as error:
        try:
            frame = lenient_loads(raw)
        except (ValueError, RecursionError):
            return Wrong("invalid_frame", f"not JSON: {error}"[:500], fatal=True, size=len(raw))
        return _refused(frame, str(error), len(raw))
    if type(frame) is not dict:
        return _refused(frame, "", len(raw))
    kind = frame.get("type")
    if type(kind) is not str or kind not in _MODELS:
        return Wrong("unknown_frame", f"type {str(kind)[:64]!r}", size=len(raw))
    try:
        said = _MODELS[kind].validate_python(frame)
    except ValidationError as error:
        listed = (f"{'.'.join(map(str, e['loc'])) or 'frame'}: {e['msg']}" for e in error.errors()[:3])
        return _refused(frame, "; ".join(listed), len(raw))
    return Beat(said.busy) if isinstance(said, Heartbeat) else Said(said, len(raw))


def _refused(frame: Any, why: str, size: int) -> Item:
    """A result that is not valid is a result all the same: its caller waits for it, and the node has done its work."""
    if type(frame) is not dict:
        return Wrong("invalid_frame", "a frame is a JSON object", fatal=True, size=size)
    kind, iid = frame.get("type"), frame.get("invocation_id")
    if kind == "invoke_result" and valid_id(iid):
        failure = frames.NodeFailure(code="invalid_result", message=f"its result was not valid: {why}"[:500])
        return Said(frames.InvokeResult(type="invoke_result", invocation_id=str(iid), ok=False, error=failure), size)
    return Wrong("invalid_frame", f"{ascii(kind)[:64]}: {why}"[:500], size=size)
