"""Control frames as requests of the law, and outcomes as what a connection can say. Pure."""

from __future__ import annotations

from actors.law import requests
from actors.law.effects import Acked, Done, Fenced, Nacked, Refuse
from actors.protocol import frames
from actors.protocol.codes import CLOSE
from actors.store.contract import Outcome

ControlFrame = frames.Hello | frames.Started | frames.Approval | frames.Final | frames.CommandAck


def request_of(
    frame: ControlFrame,
    session_id: str,
    connection_id: str,
    epoch: int,
    instance_id: str,
    gateway_id: str = "",
    *,
    seed: str,
) -> requests.Request:
    if isinstance(frame, frames.Hello):
        return requests.Connect(
            session_id=session_id,
            seed=seed,
            connection_id=connection_id,
            gateway_id=gateway_id,
            wrapper_id=frame.wrapper_id,
            instance_id=frame.instance_id,
            attempt=frame.attempt,
            executions=tuple(
                requests.Reported(
                    e.execution_id,
                    e.state,
                    e.first_seq,
                    e.last_seq,
                    e.final.model_dump() if e.final else None,
                )
                for e in frame.executions
            ),
            spool_ok=frame.spool.state == "ok",
            client=frame.client.model_dump(),
        )
    if isinstance(frame, frames.CommandAck):
        return requests.AckCommand(
            session_id=session_id,
            seed=seed,
            connection_id=connection_id,
            epoch=epoch,
            instance_id=instance_id,
            command_id=frame.command_id,
            status=frame.status,
            code=frame.code,
            detail=frame.detail,
        )
    if isinstance(frame, frames.Started):
        return requests.Started(
            session_id=session_id,
            seed=seed,
            connection_id=connection_id,
            epoch=epoch,
            instance_id=instance_id,
            execution_id=frame.execution_id,
            seq=frame.seq,
            pid=frame.pid,
        )
    if isinstance(frame, frames.Approval):
        return requests.AskApproval(
            session_id=session_id,
            seed=seed,
            connection_id=connection_id,
            epoch=epoch,
            instance_id=instance_id,
            execution_id=frame.execution_id,
            seq=frame.seq,
            approval_id=frame.approval_id,
            title=frame.title,
            options=tuple(frame.options),
            expires_in_s=frame.expires_in_s,
            data=frame.data,
        )
    return requests.Final(
        session_id=session_id,
        seed=seed,
        connection_id=connection_id,
        epoch=epoch,
        instance_id=instance_id,
        execution_id=frame.execution_id,
        seq=frame.seq,
        status=frame.status,
        exit_code=frame.exit_code,
        signal=frame.signal,
        error=frame.error,
        data=frame.data,
    )


def answer_of(outcome: Outcome) -> Acked | Nacked | Fenced | Refuse:
    answer = outcome.answer
    if isinstance(answer, (Acked, Nacked, Fenced)):
        return answer
    if isinstance(answer, Refuse):
        if answer.code in ("session_deleted", "session_not_found"):
            return Fenced(CLOSE["session_closed"], "session deleted")
        return answer
    assert isinstance(answer, Done), answer
    return Acked(0)
