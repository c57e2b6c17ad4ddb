"""An agent that works step by step, and writes down for itself what it said: the ground truth of the demo.

Input (HOLDFAST_INPUT, JSON): {"steps": 200, "pause_s": 0.1, "ask_at": null}. Every step is one numbered event on stdout
and one line in TRUTH_DIR/<execution id>. It ends between two steps when it is interrupted, so both always agree.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

WORDS = ["a", "holdfast", "is", "the", "organ", "that", "anchors", "kelp", "to", "rock", "through", "the", "surge"]


class Interrupted(Exception):
    pass


class Agent:
    def __init__(self, name: str, truth_dir: str) -> None:
        self.name = name
        self.truth = open(os.path.join(truth_dir, os.environ["HOLDFAST_EXECUTION_ID"]), "a", buffering=1)  # noqa: SIM115
        self.said = 0
        self.interrupted = self.waiting = False
        signal.signal(signal.SIGINT, self.on_interrupt)

    def on_interrupt(self, number: int, frame: object) -> None:
        self.interrupted = True
        if self.waiting:
            raise Interrupted

    def say(self, kind: str, **data: Any) -> None:
        self.said += 1
        print(json.dumps({"type": kind, "data": {"n": self.said, **data}}), flush=True)
        self.truth.write(f"{self.said}\n")

    def wait(self, pause_s: float) -> None:
        if self.interrupted:
            raise Interrupted
        self.waiting = True
        try:
            time.sleep(pause_s)
        finally:
            self.waiting = False

    def ask(self, title: str) -> str:
        asked = {"type": "approval", "id": "q1", "title": title, "options": ["allow", "deny"], "expires_in_s": 600}
        print(json.dumps(asked), flush=True)
        self.waiting = True
        try:
            for line in sys.stdin:
                answer = json.loads(line)
                if answer.get("type") == "approval":
                    return str(answer["decision"])
        finally:
            self.waiting = False
        return "deny"

    def work(self, steps: int, pause_s: float, ask_at: int | None) -> None:
        for step in range(1, steps + 1):
            if step % 10 == 0:
                self.say("tool.call", tool="count", args={"words": len(WORDS)})
                self.wait(pause_s)
                self.say("tool.result", tool="count", ok=True)
            else:
                self.say("demo.text", text=f"{self.name}: {WORDS[step % len(WORDS)]}")
            if step == ask_at:
                self.say("demo.text", text=f"somebody said {self.ask('May I go on?')}")
            self.wait(pause_s)


def main() -> None:
    wanted = json.loads(os.environ.get("HOLDFAST_INPUT") or "{}")
    agent = Agent(sys.argv[1], sys.argv[2])
    try:
        agent.work(int(wanted.get("steps", 200)), float(wanted.get("pause_s", 0.1)), wanted.get("ask_at"))
    except Interrupted:
        sys.exit(130)


if __name__ == "__main__":
    main()
