"""A house with work in it: a collector, a node with its recorder and uploader, a station, orders. The test plays the
device and the phone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from actors.gateway.auth import hash_of
from actors.store.contract import Token
from tests.gateway.house import Frame, House, Socket, eventually

GROUP = {"sop_id": "fold", "subscene_id": "table"}


class Work:
    """Station `st` has the collector `mira` and the node `n`; a token of scope collector for it is `t-st`."""

    def __init__(self, folder: Path, house: House | None = None, **settings: Any) -> None:
        self.objects = folder / "objects"
        self.objects.mkdir()
        self.house = house or House(folder / "house", objects_dir=self.objects, **settings)
        self.recorder: Socket
        self.transfer: Socket

    async def open(self) -> Work:
        await self.house.open()
        await self.station()
        return self

    async def station(self, station_id: str = "st", collector_id: str = "mira", node_id: str = "n") -> None:
        await self.call("POST", "/v1/nodes", {"node_id": node_id}, status=201)
        await self.call("POST", "/v1/collectors", {"collector_id": collector_id, "name": collector_id}, status=201)
        pair = {"station_id": station_id, "collector_id": collector_id, "node_id": node_id}
        await self.call("POST", "/v1/stations", pair, status=201)
        await self.phone(station_id)

    async def phone(self, station_id: str | None) -> str:
        secret = f"t-{station_id}"
        token = Token(f"tok_{station_id}", "collector", station_id=station_id)
        await self.house.worker.write(lambda store: store.put_token(hash_of(secret), token))
        return secret

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        return await self.house.call(method, path, body, **more)

    # ------------------------------------------------------------ orders

    async def order(self, target: int, order_id: str = "o", **more: Any) -> Frame:
        body = {"order_id": order_id, "target_count": target, **more}
        made: Frame = await self.call("POST", "/v1/orders", body, status=201)
        return made

    async def batch(
        self, quantity: int, batch_id: str = "b", order_id: str = "o", station_id: str = "st", **more: Any
    ) -> Frame:
        groups = more.pop("groups", None) or [{**GROUP, "quantity": quantity, **more}]
        body = {"batch_id": batch_id, "station_id": station_id, "groups": groups}
        made: Frame = await self.call("POST", f"/v1/orders/{order_id}/batches", body, status=201)
        return made

    async def complete(
        self, quantity: int = 1, batch_id: str = "b", *, key: str | None = None, status: int = 200, **more: Any
    ) -> Frame:
        token = more.pop("token", "t-st")
        headers = {"Idempotency-Key": key} if key else {}
        body = {**GROUP, "quantity": quantity, **more}
        path = f"/v1/batches/{batch_id}/complete-tasks"
        told: Frame = await self.call("POST", path, body, token=token, status=status, headers=headers)
        return told

    async def of_order(self, order_id: str = "o") -> Frame:
        found: Frame = await self.call("GET", f"/v1/orders/{order_id}")
        return found

    async def of_batch(self, batch_id: str = "b") -> Frame:
        found: Frame = await self.call("GET", f"/v1/batches/{batch_id}")
        return found

    async def tasks(self, **wanted: Any) -> list[Frame]:
        """Oldest first."""
        page = await self.call("GET", "/v1/tasks", params={"limit": 500, **wanted})
        return list(reversed(page["items"]))

    async def notices(self, order_id: str = "o") -> list[Frame]:
        page = await self.call("GET", f"/v1/orders/{order_id}/notices")
        return list(page["items"])

    # ------------------------------------------------------------ the device

    async def connect(self, **recorder: Any) -> None:
        self.recorder = await self.house.node("n", "recorder", reported={"state": "idle"}, **recorder)
        self.transfer = await self.house.node("n", "transfer", uploads=[])

    async def act(self, action: str, task_id: str, status: int = 202) -> Frame:
        told: Frame = await self.call("POST", f"/v1/tasks/{task_id}/{action}", {}, status=status)
        return told

    async def report(self, state: str, task_id: str | None = None) -> None:
        said = {"state": state} if task_id is None else {"state": state, "task_id": task_id, "attempt": 1}
        await self.recorder.say({"type": "state", "reported": said})

    async def is_(self, status: str, task_id: str) -> None:
        async def reached() -> bool:
            found = await self.call("GET", f"/v1/tasks/{task_id}")
            return bool(found["status"] == status)

        await eventually(reached, what=f"{task_id} {status}")

    async def ready(self, task_id: str) -> None:
        await self.act("config", task_id)
        told = await self.recorder.hear("task", action="config", task_id=task_id)
        assert told["params"]
        await self.report("ready", task_id)
        await self.is_("ready", task_id)

    async def recording(self, task_id: str) -> None:
        await self.ready(task_id)
        await self.act("begin", task_id)
        await self.recorder.hear("task", action="begin", task_id=task_id)
        await self.report("recording", task_id)
        await self.is_("in_progress", task_id)

    async def uploading(self, task_id: str) -> None:
        await self.recording(task_id)
        await self.act("finish", task_id)
        await self.recorder.hear("task", action="finish", task_id=task_id)
        await self.transfer.hear("upload_request", task_id=task_id)
        await self.report("idle")

    async def uploaded(self, task_id: str) -> Frame:
        """Tells of an object, and hears that it may delete it."""
        content = f"recording of {task_id}".encode()
        (self.objects / task_id).write_bytes(content)
        row = {"type": "upload", "task_id": task_id, "attempt": 1, "status": "uploaded"}
        what = {"object_key": task_id, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        await self.transfer.say({**row, **what})
        return await self.transfer.hear("upload_ack", task_id=task_id)
