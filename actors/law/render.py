"""Rows as the resources of PROTOCOL §1. A contract test validates every answer against protocol/resources.py."""

from __future__ import annotations

from typing import Any

from actors.law.model import Approval, Execution, Session


def execution(e: Execution) -> dict[str, Any]:
    return {
        "execution_id": e.execution_id,
        "session_id": e.session_id,
        "status": e.status,
        "input": e.input,
        "created_at_ms": e.created_at_ms,
        "received_at_ms": e.received_at_ms,
        "started_at_ms": e.started_at_ms,
        "ended_at_ms": e.ended_at_ms,
        "acked_seq": e.acked_seq,
        "last_progress_at_ms": e.last_progress_at_ms,
        "interrupt": interrupt(e),
        "outcome": outcome(e),
    }


def interrupt(e: Execution) -> dict[str, Any] | None:
    if e.interrupt_id is None:
        return None
    return {
        "interrupt_id": e.interrupt_id,
        "stage": e.interrupt_stage,
        "by": e.interrupt_by,
        "reason": e.interrupt_reason,
        "requested_at_ms": e.interrupt_at_ms,
    }


def outcome(e: Execution) -> dict[str, Any] | None:
    if not e.terminal:
        return None
    return {
        "status": e.status,
        "cause": e.cause,
        "error": e.error,
        "exit_code": e.exit_code,
        "signal": e.signal,
        "data": e.data,
    }


def session(
    s: Session, active: Execution | None, last: Execution | None, queued: int, limits: dict[str, Any]
) -> dict[str, Any]:
    return {
        "session_id": s.session_id,
        "title": s.title,
        "labels": dict(s.labels),
        "created_at_ms": s.created_at_ms,
        "updated_at_ms": s.updated_at_ms,
        "stream_id": s.stream_id,
        "last_seq": s.last_seq,
        "first_seq": s.first_seq,
        "link": {
            "state": s.link,
            "connection_id": s.connection_id,
            "epoch": s.connection_epoch,
            "wrapper_id": s.wrapper_id,
            "instance_id": s.instance_id,
            "gateway_id": s.gateway_id,
            "last_seen_at_ms": s.last_seen_at_ms,
            "grace_until_ms": s.grace_until_ms,
        },
        "active_execution": execution(active) if active else None,
        "last_execution": execution(last) if last else None,
        "queued": queued,
        "limits": limits,
    }


def approval(a: Approval) -> dict[str, Any]:
    return {
        "approval_id": a.approval_id,
        "session_id": a.session_id,
        "execution_id": a.execution_id,
        "title": a.title,
        "options": list(a.options),
        "data": a.data,
        "state": a.state,
        "decision": a.decision,
        "note": a.note,
        "resolved_by": a.resolved_by,
        "created_at_ms": a.created_at_ms,
        "expires_at_ms": a.expires_at_ms,
        "resolved_at_ms": a.resolved_at_ms,
    }
