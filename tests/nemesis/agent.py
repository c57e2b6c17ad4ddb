"""The agent under test: `agent.py HISTORIES`. Standard library only; it writes down what it does as it does it.

The input (JSON in HOLDFAST_INPUT) says how many lines, the pause between them, the exit code, and whether it is deaf to
polite signals. Each line is told before and after it is written, so that a kill between the two is no riddle.
"""

import json
import os
import signal
import sys
import time

SESSION, EXECUTION = os.environ["HOLDFAST_SESSION_ID"], os.environ["HOLDFAST_EXECUTION_ID"]
WHO = f"agent-{SESSION}-{EXECUTION}"


def main() -> None:
    path = os.path.join(sys.argv[1], f"{WHO}.jsonl")
    history = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def say(what: str, **fields: object) -> None:
        line = {"who": WHO, "at": time.monotonic(), "what": what, "session": SESSION, "execution": EXECUTION, **fields}
        os.write(history, (json.dumps(line) + "\n").encode())

    say("ran", pid=os.getpid())
    wanted = json.loads(os.environ["HOLDFAST_INPUT"])

    def hit(number: int, frame: object) -> None:
        say("signalled", signal=signal.Signals(number).name)
        if not wanted["deaf"]:
            say("exited", code=130)
            os._exit(130)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, hit)
    for n in range(wanted["lines"]):
        text = f"{EXECUTION} {n} " + "é✓x"[n % 3] * (n * 7919 % wanted["width"] + 1) + "\n"
        say("writing", text=text)
        data = text.encode()
        while data:
            data = data[os.write(1, data) :]
        say("wrote", text=text)
        time.sleep(wanted["pause_s"])  # the work
    say("exited", code=wanted["code"])
    sys.exit(wanted["code"])


main()
