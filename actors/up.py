"""`holdfast up`: the supervisor. It imports no Ray, because a Ray driver is killed by Ray when its head is away.

It owns `ray start --head --block` as a child, has a one-shot driver make gateway and reaper, and then watches from
outside: any head process that ends, or a door that stays shut, means sweep and begin again; a gateway that fails three
health checks is killed by pid and start time and comes back on the same port. It gives up never, and says what it does.
One thread, no sleeping on luck: everything is a file descriptor or a deadline. PDEATHSIG belongs to the forking thread,
so everything is started from the main one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from actors import processes, show, telemetry
from actors.config import Settings
from actors.probe import Probe
from actors.protocol.codes import EXIT_CONFLICT, EXIT_FAILURE, EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE
from actors.protocol.ids import ulid

HEAD_READY_S = 30.0  # measured 2.0–2.2 s; a cold disk and a busy host may need ten times that
BOOT_S = 60.0
PROBE_EVERY_S = 1.0
PROBE_WITHIN_S = 2.0  # the loop answers in milliseconds; two seconds of silence three times is no garbage collection
PROBE_FAILURES = 3
SHUT_S = 30.0  # no healthy answer for so long, though Ray restarts the gateway in 0.5 s: Ray itself is at fault
BACKOFF_S = (
    0.0,
    0.5,
    1.0,
    2.0,
    4.0,
    8.0,
)  # the first restart is at once; a head that keeps falling may not burn the host
STEADY_S = 60.0  # a head that stood this long was healthy; the next fall starts at 0 again
TERM_S = 3.0
FILES_WANTED = 20_500  # the gateway's 20,000 sockets (door.py) and what is its own
FILES_OWN = 500  # 250 were seen with everything awake
FILES_FEW = 10_000 + FILES_OWN  # less is worth a word: systems come with 1,024, and the next socket is simply refused
# Below those that Linux gives to outgoing connections (32,768 on): ten seconds and more pass between the choice of a
# port and its use, and meanwhile any connection of anybody's could have had it (seen: a minute without a gateway).
QUIET_PORTS = range(20_000, 32_000)
JANITOR_EVERY_S = 60.0
DEAD_LOGS_KEPT = 100  # files of dead workers kept for whoever asks why; 5 files, 1 to 16 KB, per wake of an actor
RAY_DIR_MAX = 44  # characters: Ray puts AF_UNIX sockets below it, and those have 107

SYSTEM_CONFIG = {
    "timeout_ms_task_wait_for_death_info": 100,  # callers learn of a death in 0.15 s, not 2 s
    "core_worker_internal_heartbeat_ms": 200,
    "gcs_rpc_server_reconnect_timeout_s": 5,
    "maximum_gcs_destroyed_actor_cached_count": 100,  # hibernation makes dead actors: 100 000 would be kept
    "maximum_gcs_dead_worker_cached_count": 100,
    "task_events_report_interval_ms": 0,
    "task_failure_entry_ttl_ms": 5000,
}

Boot = Callable[[str], Sequence[str]]  # the driver's arguments, as JSON → its argv


def boot_argv(arguments: str) -> Sequence[str]:
    return [sys.executable, "-P", "-m", "actors.runtime", "boot", arguments]


class Refused(Exception):
    """`up` cannot begin; `exit_code` is of codes.py."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Supervisor:
    def __init__(
        self,
        settings: Settings,
        *,
        ready_file: Path | None = None,
        announce_json: bool = False,
        boot: Boot = boot_argv,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    ) -> None:
        self.settings, self.ready_file, self.boot, self.say = settings, ready_file, boot, say
        self.announce_json = announce_json
        self.data_dir = settings.data_dir
        self.own_dir = short_dir_of(self.data_dir)
        self.ray_dir = self.own_dir / "r"  # Ray opens the mode of its directory to all; ours above stays shut
        self.head_ready = self.ray_dir / "ray_current_cluster"
        self.stopping: int | None = None
        self.announced = False
        self.statuses: dict[int, int] = {}
        self.lock_fd = -1
        self.signal_fd = -1

    # ---------------------------------------------------------------- the whole run

    def run(self) -> int:
        """Until SIGTERM or SIGINT. Raises Refused if it cannot begin."""
        self._check_ready_file()
        self._take_data_dir()
        if (files := processes.room_for_files(FILES_WANTED)) < FILES_FEW:
            self.say(
                f"holdfast: only {files} files may be open here, so about {max(0, files - FILES_OWN)} wrappers and "
                f"watchers at a time; for more, raise the hard limit (ulimit -Hn {FILES_WANTED}, or LimitNOFILE=)"
            )
        with self._signals():
            processes.become_subreaper()
            for stale in (self.data_dir / "ready.json", self.data_dir / "gateway.json", self.ready_file):
                if stale is not None:
                    stale.unlink(missing_ok=True)  # of an `up` that was killed: it must not speak for us
            self._sweep("left from before")
            self.settings = choose_port(self.settings)
            self.token = token_in(self.data_dir / "token")
            write_private(self.data_dir / "ray-token", secrets.token_hex(32))
            make_private_dir(self.own_dir)
            falls = 0
            try:
                while self.stopping is None:
                    began = time.monotonic()
                    try:
                        ended = self._live_once()
                    except OSError as error:  # a full disk, no more processes: it may pass, and nobody else restarts us
                        ended = self._fell(f"could not go on: {error}")
                    if ended == "stopped":
                        break
                    falls = 0 if time.monotonic() - began > STEADY_S else falls
                    pause, falls = BACKOFF_S[min(falls, len(BACKOFF_S) - 1)], falls + 1
                    self.say(f"holdfast: starting again{f' in {pause:g} s' if pause else ''}")
                    self._wait([], pause)
            finally:
                self._clean_up()
        self.say("holdfast: ended, nothing left running")
        return EXIT_OK

    def _live_once(self) -> Literal["stopped", "fell"]:
        """One head from birth to death; leaves nothing of it."""
        self._sweep()
        self._forget_old_sessions()
        gcs_port = free_port("127.0.0.1")
        head = self._start_head(gcs_port)
        driver = self._start_driver(gcs_port)  # imports and migrates while Ray starts
        fds: list[int] = []
        try:
            fds.append(os.pidfd_open(head.pid))
            if not self._until(self.head_ready.exists, fds, HEAD_READY_S):
                return self._fell("Ray did not start", self.data_dir / "head.log")
            # Ray's parent only looks once a second, and takes some deaths for good ones: look ourselves
            for pid in processes.children_of(head.pid):
                with contextlib.suppress(OSError):  # ended already: the head's own pidfd tells
                    fds.append(os.pidfd_open(pid))
            self._until(lambda: driver.pid in self.statuses, fds, BOOT_S)
            if self.statuses.pop(driver.pid, None) != 0:
                return self._fell("gateway and reaper did not come up", self.data_dir / "boot.log")
            self._announce()
            return self._watch(fds)
        finally:
            for fd in fds:
                os.close(fd)
            self._end(driver, head)

    def _fell(self, why: str, log: Path | None = None) -> Literal["stopped", "fell"]:
        if self.stopping is not None:
            return "stopped"
        telemetry.emit("up.head_died", why=why)
        self.say(f"holdfast: {why}")
        if log is not None and (tail := tail_of(log)):
            self.say(tail)
        return "fell"

    # ---------------------------------------------------------------- birth

    def _start_head(self, gcs_port: int) -> subprocess.Popen[bytes]:
        self.say("holdfast: starting Ray …")
        argv = [
            *(sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *("--node-ip-address=127.0.0.1", f"--port={gcs_port}", f"--temp-dir={self.ray_dir}"),
            *("--include-dashboard=false", "--no-monitor", "--include-log-monitor=false", "--disable-usage-stats"),
            *("--num-cpus=2", "--object-store-memory=80000000"),
            *("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"),
            f"--system-config={json.dumps(SYSTEM_CONFIG)}",
        ]
        return self._spawn(argv, self.data_dir / "head.log")

    def _start_driver(self, gcs_port: int) -> subprocess.Popen[bytes]:
        arguments = {
            "settings": self.settings.model_dump(mode="json"),
            "address": f"127.0.0.1:{gcs_port}",
            "head_ready": str(self.head_ready),
            "cluster": f"cl_{ulid()}",
            "token_sha256": hashlib.sha256(self.token.encode()).hexdigest(),
            "within_s": HEAD_READY_S + BOOT_S,
        }
        return self._spawn(self.boot(json.dumps(arguments)), self.data_dir / "boot.log")

    def _spawn(self, argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        with open(log, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                cwd=self.data_dir,
                start_new_session=True,  # a terminal's Ctrl-C is ours to hand on
                preexec_fn=processes.die_with_parent(),
            )
        process.returncode = 0  # we reap by waitpid(-1); Popen must neither wait for it nor warn that it did not
        return process

    def _environment(self) -> dict[str, str]:
        # No secret and no stranger's Ray settings may reach a worker's environment; our settings travel as arguments.
        env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "HOLDFAST_"))}
        root = str(Path(__file__).resolve().parent.parent)
        if root != sysconfig.get_paths()["purelib"]:  # run from a checkout: workers must find the same code
            env["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [env.get("PYTHONPATH")])])
        return env | {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # despite its name: every listener on 127.0.0.1
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.data_dir / "ray-token"),
            "RAY_worker_niceness": "0",  # 15 by default, which doubles the gateway's p99 under load
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "RAY_BACKEND_LOG_LEVEL": "error",
            "RAY_ROTATION_MAX_BYTES": str(16 << 20),
            "RAY_ROTATION_BACKUP_COUNT": "1",
        }

    def _announce(self) -> None:
        url = f"http://{bracketed(self.settings.host)}:{self.settings.port}"
        ready = {"url": url, "token": self.token, "pid": os.getpid()}
        write_private(self.data_dir / "ready.json", json.dumps({"url": url, "pid": os.getpid()}))
        if self.announced:
            self.say(f"holdfast: up again at {url}")
            return
        self.announced = True
        self.say(f"holdfast: up at {url}  (token in {self.data_dir / 'token'})")
        holdfast = show.program()
        self.say(f"holdfast: in another shell, try `{holdfast} session list`, or `{holdfast} run -- echo hello`")
        self.say("holdfast: Ctrl-C ends everything")
        if self.announce_json:  # without the token: stdout may be logged
            print(json.dumps({"url": url, "token_file": str(self.data_dir / "token"), "pid": os.getpid()}), flush=True)
        if self.ready_file is not None:
            write_private(self.ready_file, json.dumps(ready))

    # ---------------------------------------------------------------- watching

    def _watch(self, head_fds: list[int]) -> Literal["stopped", "fell"]:
        probe: Probe | None = None
        failures, last_good, next_probe = 0, time.monotonic(), 0.0
        next_janitor = time.monotonic() + JANITOR_EVERY_S
        while True:
            now = time.monotonic()
            if probe is None and now >= next_probe:
                probe = Probe(self.settings.host, self.settings.port, now + PROBE_WITHIN_S)
            due = probe.deadline if probe else next_probe
            readable = self._wait(head_fds, max(0.0, due - now), probe)
            if self.stopping is not None:
                return "stopped"
            if readable:
                return self._fell("a process of Ray ended")
            if probe is not None and (good := probe.step(time.monotonic())) is not None:
                probe.close()
                probe, next_probe = None, now + PROBE_EVERY_S
                if good:
                    failures, last_good = 0, time.monotonic()
                    continue
                failures += 1
                if failures >= PROBE_FAILURES and self._kill_gateway():
                    failures = 0
                if time.monotonic() - last_good > SHUT_S:
                    return self._fell(f"the gateway has not answered for {SHUT_S:g} s")
            if now >= next_janitor:
                next_janitor = now + JANITOR_EVERY_S
                self._tidy_logs()

    def _kill_gateway(self) -> bool:
        """Ray never notices a stopped process; we do. Ray restarts it, and it binds the same port again."""
        try:
            info = json.loads((self.data_dir / "gateway.json").read_text())
            pid, started = int(info["pid"]), int(info["pid_started"])
        except (OSError, ValueError, KeyError):
            return False  # it never came up far enough to say who it is: SHUT_S will end the head
        if not processes.end_exactly(pid, started):
            return False
        telemetry.emit("gateway.unhealthy", pid=pid, failures=PROBE_FAILURES)
        self.say(f"holdfast: the gateway (pid {pid}) failed {PROBE_FAILURES} health checks: killed, Ray restarts it")
        return True

    def _wait(self, fds: Sequence[int], within_s: float, probe: Probe | None = None) -> bool:
        """Sleeps until a signal, the deadline, or the probe moves; True when one of fds ended. Reaps children."""
        read = [self.signal_fd, *fds]
        write: list[int] = []
        if probe is not None and (fd := probe.fileno()) >= 0:
            (write if probe.wants_write else read).append(fd)
        deadline = time.monotonic() + within_s
        ready: list[int] = []
        while self.stopping is None:
            ready, writable, _ = select.select(read, write, [], max(0.0, min(deadline - time.monotonic(), 1.0)))
            if self.signal_fd in ready:
                os.read(self.signal_fd, 4096)
            self.statuses.update(processes.reap())
            if len(self.statuses) > 1000:  # adopted orphans that nobody asks for
                self.statuses.clear()
            if ready or writable or time.monotonic() >= deadline:
                break
        return any(fd in ready for fd in fds)

    def _until(self, condition: Callable[[], bool], fds: Sequence[int], within_s: float) -> bool:
        """False: stopped, one of fds ended, or the time is up."""
        deadline = time.monotonic() + within_s
        while not condition():
            if self._wait(fds, 0.02) or self.stopping is not None or time.monotonic() > deadline:
                return condition()
        return True

    # ---------------------------------------------------------------- death

    def _end(self, driver: subprocess.Popen[bytes], head: subprocess.Popen[bytes]) -> None:
        for process, polite in ((driver, False), (head, self.stopping is not None)):
            try:
                pidfd = os.pidfd_open(process.pid)
            except OSError:
                continue  # it ended first
            try:
                if polite:
                    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
                    select.select([pidfd], [], [], TERM_S)
                with contextlib.suppress(ProcessLookupError):  # it ended, as asked
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)
        self._sweep()  # what they left behind

    def _sweep(self, what: str = "") -> None:
        began = time.monotonic()
        while True:
            try:
                count = processes.sweep(str(self.ray_dir))
                break
            except TimeoutError as error:  # stuck in the kernel; beginning beside it would be two doors
                self.say(f"holdfast: {error}; waiting for them")
                if self.stopping is not None:
                    return
        if count and what:
            self.say(f"holdfast: ended {count} processes {what} ({time.monotonic() - began:.2f} s)")

    def _clean_up(self) -> None:
        self._sweep()
        shutil.rmtree(self.own_dir, ignore_errors=True)
        for name in ("ready.json", "gateway.json", "ray-token"):
            (self.data_dir / name).unlink(missing_ok=True)
        if self.ready_file is not None and self.announced:
            self.ready_file.unlink(missing_ok=True)
        os.close(self.lock_fd)

    # ---------------------------------------------------------------- beginning and tidying

    def _check_ready_file(self) -> None:
        """Before anything begins: who waits for this file must not wait for nothing."""
        if self.ready_file is None:
            return
        folder = self.ready_file.absolute().parent
        if not folder.is_dir():
            raise Refused(f"--ready-file {self.ready_file}: there is no directory {folder}", EXIT_USAGE)
        if self.ready_file.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise Refused(f"--ready-file {self.ready_file} cannot be written", EXIT_USAGE)

    def _take_data_dir(self) -> None:
        """One `up` per data directory, and it must hold the lock before it sweeps anything."""
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.lock_fd = os.open(self.data_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            why = "it is a file" if self.data_dir.is_file() else error.strerror
            message = f"{self.data_dir} cannot be the data directory ({why}); give another --data-dir"
            raise Refused(message, EXIT_USAGE) from error
        try:
            fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self.lock_fd, 32, 0).decode().strip() or "?"
            os.close(self.lock_fd)
            raise Refused(
                f"{self.data_dir} is in use by another `holdfast up` (pid {pid}); stop that one, or give --data-dir",
                EXIT_CONFLICT,
            ) from None
        os.ftruncate(self.lock_fd, 0)
        os.pwrite(self.lock_fd, f"{os.getpid()}\n".encode(), 0)

    @contextlib.contextmanager
    def _signals(self) -> Any:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)

        def stop(number: int, frame: object) -> None:
            self.stopping = self.stopping or number

        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: the terminal may go, we stay
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, stop) for number in numbers}
        wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self.signal_fd = ours.fileno()
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            ours.close()
            theirs.close()

    def _forget_old_sessions(self) -> None:
        """Ray never removes its session directories. Everything in them is dead by now; the last one's logs are kept
        until the next fall, for whoever asks why."""
        self.head_ready.unlink(missing_ok=True)
        old = sorted(self.ray_dir.glob("session_2*"), key=lambda path: path.stat().st_mtime)
        for path in old[:-1]:
            shutil.rmtree(path, ignore_errors=True)
        for path in old[-1:]:
            for part in path.iterdir():
                if part.name != "logs":
                    shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)

    def _tidy_logs(self) -> None:
        """Each wake of an actor leaves five log files; the newest of dead workers are kept, the rest goes."""
        dead = []
        for path in (self.ray_dir / "session_latest" / "logs").glob("*[-_]*.*"):
            pid = path.stem.rpartition("_" if path.name.startswith("python-core") else "-")[2]
            if pid.isdigit() and not processes.alive(int(pid)):
                with contextlib.suppress(FileNotFoundError):  # Ray rotates them under us
                    dead.append((path.stat().st_mtime, path))
        for _, path in sorted(dead)[:-DEAD_LOGS_KEPT]:
            path.unlink(missing_ok=True)


# -------------------------------------------------------------------- small tools


def short_dir_of(data_dir: Path) -> Path:
    """Short, and the same for the same data directory: the next `up` must find what the last one left."""
    name = hashlib.sha256(f"{os.getuid()}:{data_dir.resolve()}".encode()).hexdigest()[:8]
    path = Path(f"/tmp/hf-{name}")  # noqa: S108 - checked by make_private_dir: ours and 0700, or refused
    assert len(str(path)) + 2 <= RAY_DIR_MAX
    return path


def make_private_dir(path: Path) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if path.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Refused(f"{path} belongs to somebody else or is open to others; remove it", EXIT_FAILURE)


def write_private(path: Path, text: str) -> None:
    """0600 and whole: readers see the old text or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, 0o600)
        file.write(text)
        file.flush()
        os.fsync(fd)
    os.replace(temporary, path)


def token_in(path: Path) -> str:
    """The admin token: made once, 256 bits, readable by us alone."""
    try:
        token = path.read_text().strip()
    except FileNotFoundError:
        token = ""
    if not token:
        token = secrets.token_urlsafe(32)
        write_private(path, token + "\n")
    path.chmod(0o600)
    return token


def choose_port(settings: Settings) -> Settings:
    """Port 0 is picked once and kept, so that the gateway comes back where wrappers look for it."""
    port = settings.port
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((settings.host, port or free_port(settings.host)))
        except OSError as error:
            message = (
                f"{settings.host}:{port} cannot be used ({error.strerror}); give --port, or --port 0 for a free one"
            )
            raise Refused(message, EXIT_UNAVAILABLE) from error
        return settings.model_copy(update={"port": door.getsockname()[1]})


def free_port(host: str) -> int:
    """One of QUIET_PORTS if any of a hundred is free; else whatever the kernel gives. Errors: OSError, for a host that
    is not ours."""
    for port in (*random.sample(QUIET_PORTS, 100), 0):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as door:
            try:
                door.bind((host, port))
            except OSError:
                if port == 0:
                    raise
                continue
            return int(door.getsockname()[1])
    raise AssertionError("port 0 is bound or raises")


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def tail_of(path: Path, lines: int = 15) -> str:
    try:
        text = path.read_bytes()[-8192:].decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:] if line.strip())
