"""Conversations of nodes for test_frames.py: together they have every frame of a node's socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.contract.judge import Judge
from tests.contract.talk import Talk
from tests.gateway.house import Frame, House, node_hello, result

Story = Callable[[House, Judge], Awaitable[set[str]]]


async def connected(house: House, judge: Judge, role: str, **fields: object) -> Talk:
    secret = await house.node_token("n")
    talk = Talk(judge, "node", await house.socket(f"/v1/nodes/n/connect?role={role}", secret))
    await talk.say(node_hello(**fields))
    ack = await talk.hear("hello_ack")
    for directive in ack["directives"]:
        talk.judge.frame("node", directive)
    return talk


async def a_node_at_work(house: House, judge: Judge) -> set[str]:
    talk = await connected(house, judge, "node", capabilities={"arms": [1, None]}, attempt=1)
    calling = house.invoke(params={"n": [1, None]}, idle_timeout_s=20)
    asked = await talk.hear("invoke")
    assert asked["params"] == {"n": [1, None]}
    iid = asked["invocation_id"]
    await talk.say({"type": "invoke_progress", "invocation_id": iid, "seq": 1, "payload": {"percent": 50}})
    await talk.say({"type": "event", "event": {"type": "battery.low", "data": {"level": 7}}}, {"type": "heartbeat"})
    await talk.say(result(asked, {"text": "ä€😀\n\x00"}))
    assert (await calling)["payload"] == {"text": "ä€😀\n\x00"}
    await talk.say(result(asked, ok=False, error={"code": "E", "message": "twice"}))
    assert (await talk.hear("ignored"))["invocation_id"] == iid
    calling = house.invoke()
    asked = await talk.hear("invoke")
    await house.call("POST", f"/v1/invocations/{asked['invocation_id']}/cancel")
    await talk.hear("invoke_cancel")
    assert (await calling)["error"]["code"] == "CANCELLED"
    await talk.socket.say({"type": "of another time"})
    assert (await talk.hear("error"))["code"] == "unknown_frame"
    await talk.socket.close()
    return talk.seen


async def a_recording(house: House, judge: Judge) -> set[str]:
    recorder = await connected(house, judge, "recorder")
    transfer = await connected(house, judge, "transfer", uploads=[])
    await recorder.hear("probe")  # it has not said its state
    await recorder.say({"type": "state", "reported": {"state": "idle"}})
    await house.call("POST", "/v1/nodes/n/tasks", {"task_id": "t", "params": {"scene": 7}})
    for action, state in (("config", "ready"), ("begin", "recording"), ("pause", "paused"), ("resume", "recording")):
        await act(house, action)
        told = await recorder.hear("task", action=action)
        assert told["params"] == ({"scene": 7} if action == "config" else None)
        await recorder.say({"type": "state", "reported": {"state": state, "task_id": "t", "attempt": 1}})
    await act(house, "finish")
    await recorder.hear("task", action="finish")
    await transfer.hear("upload_request")
    row: Frame = {"type": "upload", "task_id": "t", "attempt": 1}
    await transfer.say({**row, "status": "accepted"}, {**row, "status": "progress", "detail": "half"})
    await transfer.say({**row, "status": "uploaded", "object_key": "a/b", "sha256": "0" * 64, "size": 1})
    assert (await transfer.hear("upload_ack"))["disposition"] == "keep"
    await recorder.socket.close()
    await transfer.socket.close()
    return recorder.seen | transfer.seen


async def act(house: House, action: str) -> None:
    """As soon as the report before it has arrived."""
    from tests.gateway.house import eventually

    async def taken() -> bool:
        headers = {"Authorization": "Bearer t-operator"}
        async with house.client.post(f"{house.url}/v1/tasks/t/{action}", json={}, headers=headers) as answer:
            return answer.status == 202

    await eventually(taken)


NODE_STORIES: dict[Story, set[str]] = {
    a_node_at_work: {
        *("NodeHello", "NodeHelloAck", "Invoke", "InvokeProgress", "InvokeResult", "InvokeCancel"),
        *("Ignored", "NodeLogEvent", "Heartbeat", "Error"),
    },
    a_recording: {
        *("NodeHello", "NodeHelloAck", "Probe", "State", "TaskCommand"),
        *("UploadRequest", "Upload", "UploadAck"),
    },
}
