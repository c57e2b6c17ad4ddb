"""Operators inside the cluster: the same decisions over Ray, through a gateway that dies meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.conftest import eventually
from tests.e2e.service import Service

SCRIPT = """
import json, sys
from pathlib import Path
from actors.client import Client
from actors.protocol.errors import Refused
client = Client.connect(Path(sys.argv[1]), by="a program")
said = {"started": client.start_execution("inside", {"n": 1}, execution_id="e1")["status"]}
said["again"] = client.start_execution("inside", {"n": 1}, execution_id="e1")["execution_id"]
print("kill", flush=True); sys.stdin.readline()
said["state"] = client.state("inside")["active_execution"]["execution_id"]
said["failed"] = client.fail_execution("inside", "e1", "enough")["changed"]
said["twice"] = client.fail_execution("inside", "e1", "enough")["changed"]
client.start_execution("inside", execution_id="e2")
said["interrupted"] = client.interrupt("inside", reason="stop")["execution"]["status"]
try:
    client.interrupt("inside")
except Refused as refused:
    said["refused"] = refused.code
try:
    client.state("nowhere")
except Exception as error:
    said["nowhere"] = error.code
print(json.dumps(said), flush=True)
"""


def test_a_program_inside_the_cluster_operates_sessions(service: Service) -> None:
    service.create("inside")
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(service.data)],
        env=service.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None and program.stdout.readline() == "kill\n"
    service.kill_gateway()
    out, _ = program.communicate("\n", timeout=60)
    assert program.returncode == 0
    assert json.loads(out) == {
        "started": "pending",
        "again": "e1",
        "state": "e1",
        "failed": True,
        "twice": False,
        "interrupted": "interrupted",
        "refused": "nothing_to_interrupt",
        "nowhere": "session_not_found",
    }
    assert service.execution("inside", "e1")["outcome"]["data"] == {"by": "a program"}
    eventually(service.healthy, 10)
