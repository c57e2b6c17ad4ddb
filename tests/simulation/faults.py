"""What can happen, by name: what people ask for, and what befalls processes, lines, disks and clocks.

Each takes (world, happening): `pick` chooses whom it befalls, `size` how much of it. Nobody there: nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from actors.law import requests as rq
from tests.simulation.kernel import US, Process
from tests.simulation.people import Watcher

if TYPE_CHECKING:
    from tests.simulation.plan import Happening
    from tests.simulation.world import World

T = TypeVar("T")
TABLE: dict[str, Callable[[World, Happening], object]] = {}


def befall(world: World, happening: Happening) -> None:
    world.kernel.said("fault", f"! {happening.kind}")
    TABLE[happening.kind](world, happening)


def happens(kind: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    def put(fn: Callable[..., object]) -> Callable[..., object]:
        TABLE[kind] = fn
        return fn

    return put


def one_of(found: Sequence[T], pick: float) -> T | None:
    return found[int(pick * len(found))] if found else None


# ---------------------------------------------------------------- people


@happens("submit")
def submit(world: World, h: Happening) -> None:
    sid = one_of(world.sessions, h.pick)
    assert sid is not None
    eid = f"e{len(world.executions)}"
    world.executions.append((sid, eid))

    def make() -> rq.Request:
        return rq.Submit(session_id=sid, seed=world.kernel.mint(), execution_id=eid, input={"n": 1}, by="op")

    world.operator.ask(make, keyed=h.size < 0.5)


def _execution(world: World, h: Happening) -> tuple[str, str] | None:
    return one_of(world.executions[-6:], h.pick)


def _interrupt(world: World, h: Happening, named: bool, force: bool) -> None:
    found = _execution(world, h)
    if found is None:
        return
    sid, eid = found

    def make() -> rq.Request:
        return rq.Interrupt(
            session_id=sid, seed=world.kernel.mint(), execution_id=eid if named else None, force=force, by="op"
        )

    world.operator.ask(make, keyed=h.size < 0.5)


@happens("interrupt")
def interrupt(world: World, h: Happening) -> None:
    _interrupt(world, h, False, False)


@happens("interrupt_named")
def interrupt_named(world: World, h: Happening) -> None:
    _interrupt(world, h, True, False)


@happens("force")
def force(world: World, h: Happening) -> None:
    _interrupt(world, h, h.size < 0.3, True)


@happens("fail")
def fail(world: World, h: Happening) -> None:
    if (found := _execution(world, h)) is not None:
        sid, eid = found
        world.operator.ask(
            lambda: rq.Fail(session_id=sid, seed=world.kernel.mint(), execution_id=eid, error="by hand", by="op"),
            keyed=h.size < 0.5,
        )


@happens("input")
def send_input(world: World, h: Happening) -> None:
    if (found := _execution(world, h)) is not None:
        sid, eid = found
        world.operator.ask(
            lambda: rq.SendInput(session_id=sid, seed=world.kernel.mint(), execution_id=eid, input="more", by="op"),
            keyed=True,
        )


@happens("approve")
def approve(world: World, h: Happening) -> None:
    rows = world.disk.connection.execute(
        "select session_id, id from approvals where state = 'open' order by session_id, id"
    ).fetchall()
    if (found := one_of(rows, h.pick)) is not None:
        sid, aid = found
        decision = "allow" if h.size < 0.5 else "deny"
        world.operator.ask(
            lambda: rq.ResolveApproval(
                session_id=sid, seed=world.kernel.mint(), approval_id=aid, decision=decision, by="op"
            ),
            keyed=True,
        )


@happens("delete")
def delete(world: World, h: Happening) -> None:
    if len(world.sessions) > 1 and (sid := one_of(world.sessions, h.pick)) is not None:
        world.operator.ask(
            lambda: rq.DeleteSession(session_id=sid, seed=world.kernel.mint(), by="op"), keyed=h.size < 0.5
        )


@happens("watch")
def watch(world: World, h: Happening) -> None:
    sid = one_of(world.sessions, h.pick)
    assert sid is not None
    n = len(world.watchers)
    if n >= 8:
        return
    types: tuple[str, ...] = ()
    eid = None
    if h.size > 0.85:
        types = ("line", "execution.completed", "execution.failed")
    elif h.size > 0.75 and world.executions:
        eid = world.executions[-1][1]
    after = None if h.size < 0.3 and n >= world.odds.sessions else 0
    world.watchers.append(Watcher(world, f"watcher-{n}", sid, after, types, eid))


# ---------------------------------------------------------------- processes


def _wrappers(world: World) -> list[Any]:
    return [host for host in world.hosts if host.process is not None and host.process.alive]


def _gateway(world: World) -> Any:
    return world.open_gateway()


def _actors(world: World) -> list[Any]:
    return [actor for actor in world.actors if actor.process.alive]


def _crash(world: World, process: Process | None) -> None:
    if process is not None and process.alive:
        world.kernel.said(process.name, "! kill -9")
        process.crash()


def _crash_at_turn(world: World, process: Process | None, h: Happening) -> None:
    """Between two turns of its tasks: at any await."""
    if process is not None and process.alive:
        process.doom = (int(h.size * 60), lambda: _crash(world, process))


def _crash_at_commit(found: Any, h: Happening) -> None:
    if found is not None and found.process.alive:
        found.worker.doom = "before" if h.size < 0.4 else "after"


@happens("crash_wrapper")
def crash_wrapper(world: World, h: Happening) -> None:
    if (host := one_of(_wrappers(world), h.pick)) is not None:
        _crash(world, host.process)


@happens("crash_wrapper_at_turn")
def crash_wrapper_at_turn(world: World, h: Happening) -> None:
    if (host := one_of(_wrappers(world), h.pick)) is not None:
        _crash_at_turn(world, host.process, h)


@happens("stop_wrapper")
def stop_wrapper(world: World, h: Happening) -> None:
    """SIGTERM: an upgrade."""
    if (host := one_of(_wrappers(world), h.pick)) is not None and host.wrapper is not None:
        host.process.call_soon(host.wrapper.terminate)


@happens("second_wrapper")
def second_wrapper(world: World, h: Happening) -> None:
    sid = one_of(world.sessions, h.pick)
    if sid is not None and h.size < world.odds.second_wrapper and sum(x.session_id == sid for x in world.hosts) < 2:
        world.add_host(sid)
        return
    idle = [host for host in world.hosts if host.ended is not None and not host.process.alive]  # type: ignore[union-attr]
    if (host := one_of(idle, h.pick)) is not None:
        world.birth_wrapper(host)


@happens("crash_gateway")
def crash_gateway(world: World, h: Happening) -> None:
    if (gateway := _gateway(world)) is not None:
        _crash(world, gateway.process)


@happens("crash_gateway_at_turn")
def crash_gateway_at_turn(world: World, h: Happening) -> None:
    if (gateway := _gateway(world)) is not None:
        _crash_at_turn(world, gateway.process, h)


@happens("crash_gateway_at_commit")
def crash_gateway_at_commit(world: World, h: Happening) -> None:
    _crash_at_commit(_gateway(world), h)


@happens("crash_actor")
def crash_actor(world: World, h: Happening) -> None:
    if (actor := one_of(_actors(world), h.pick)) is not None:
        _crash(world, actor.process)


@happens("crash_actor_at_turn")
def crash_actor_at_turn(world: World, h: Happening) -> None:
    if (actor := one_of(_actors(world), h.pick)) is not None:
        _crash_at_turn(world, actor.process, h)


@happens("crash_actor_at_commit")
def crash_actor_at_commit(world: World, h: Happening) -> None:
    _crash_at_commit(one_of(_actors(world), h.pick), h)


@happens("crash_reaper")
def crash_reaper(world: World, h: Happening) -> None:
    if world.reaper is not None:
        _crash(world, world.reaper.process)


@happens("crash_reaper_at_commit")
def crash_reaper_at_commit(world: World, h: Happening) -> None:
    _crash_at_commit(world.reaper, h)


@happens("crash_everything")
def crash_everything(world: World, h: Happening) -> None:
    """Power: of the service, and of some machines."""
    for process in world.processes():
        if process is not world.people and (not process.name.startswith("host") or h.pick < 0.5):
            _crash(world, process)
    if h.size > 0.7:  # and the service stays away
        world.down_until = world.kernel.now + int((h.size - 0.7) * 60 * US)


def _freeze(world: World, process: Process | None, us: int) -> None:
    if process is not None and process.alive and not process.frozen:
        world.kernel.said(process.name, f"! freezes for {us / US:.1f} s")
        process.freeze()
        world.kernel.after(us, process.thaw)


@happens("freeze_wrapper")
def freeze_wrapper(world: World, h: Happening) -> None:
    if (host := one_of(_wrappers(world), h.pick)) is not None:
        _freeze(world, host.process, int((0.2 + h.size * 14) * US))


@happens("freeze_gateway")
def freeze_gateway(world: World, h: Happening) -> None:
    if (gateway := _gateway(world)) is not None:
        _freeze(world, gateway.process, int((0.1 + h.size * 4) * US))


@happens("zombie_gateway")
def zombie_gateway(world: World, h: Happening) -> None:
    """Frozen; another is born, because this one was thought dead; then it wakes, and finishes its sentence."""
    if (gateway := _gateway(world)) is not None and not gateway.process.frozen:
        _freeze(world, gateway.process, int((2 + h.size * 8) * US))
        world.kernel.after(US, world.birth_gateway)
        for line in world.lines:
            if line.server.process is gateway.process and world.kernel.rng.random() < 0.7:
                line.ghost(0)
        world.kernel.after(int((6 + h.size * 9) * US), _end_zombie, world, gateway)


def _end_zombie(world: World, gateway: Any) -> None:
    """The data directory's lock is another's: whoever notices ends it."""
    if gateway is not world.open_gateway():
        _crash(world, gateway.process)


@happens("freeze_actor")
def freeze_actor(world: World, h: Happening) -> None:
    if (actor := one_of(_actors(world), h.pick)) is not None:
        _freeze(world, actor.process, int((0.5 + h.size * 12) * US))


@happens("freeze_reaper")
def freeze_reaper(world: World, h: Happening) -> None:
    if world.reaper is not None:
        _freeze(world, world.reaper.process, int((0.5 + h.size * 12) * US))


@happens("second_actor")
def second_actor(world: World, h: Happening) -> None:
    sid = one_of(world.sessions, h.pick)
    assert sid is not None
    world.wake(sid, twice=True)


# ---------------------------------------------------------------- lines


def _line(world: World, h: Happening, *, watching: bool = False) -> Any:
    found = [
        line
        for line in world.lines
        if not line.over and not line.left and (line.client.process is world.people) is watching
    ]
    return one_of(found, h.pick)


@happens("cut")
def cut(world: World, h: Happening) -> None:
    if (line := _line(world, h)) is not None:
        line.cut(h.size, True, True)


@happens("half_open")
def half_open(world: World, h: Happening) -> None:
    if (line := _line(world, h)) is not None:
        line.cut(h.size, h.pick * 7 % 1 < 0.3, h.pick * 7 % 1 > 0.7)


@happens("ghost")
def ghost(world: World, h: Happening) -> None:
    if (line := _line(world, h)) is not None:
        line.ghost(int(h.size**2 * 3 * US))


@happens("hold_up")
def hold_up(world: World, h: Happening) -> None:
    if (line := _line(world, h)) is not None:
        line.client.out.hold(int(h.size**2 * 12 * US))


@happens("hold_down")
def hold_down(world: World, h: Happening) -> None:
    if (line := _line(world, h)) is not None:
        line.server.out.hold(int(h.size**2 * 12 * US))


@happens("lose_up")
def lose_up(world: World, h: Happening) -> None:
    if (line := _line(world, h)) is not None:
        line.client.out.lose = 1 + int(h.size * 3)


@happens("lose_down")
def lose_down(world: World, h: Happening) -> None:
    if (line := _line(world, h)) is not None:
        line.server.out.lose = 1 + int(h.size * 3)


@happens("double_up")
def double_up(world: World, h: Happening) -> None:
    if (line := _line(world, h)) is not None:
        line.client.out.double = 1 + int(h.size * 5)


@happens("slow_watcher")
def slow_watcher(world: World, h: Happening) -> None:
    if (line := _line(world, h, watching=True)) is not None:
        line.server.out.hold(int(h.size * 15 * US))


@happens("cut_watcher")
def cut_watcher(world: World, h: Happening) -> None:
    if (line := _line(world, h, watching=True)) is not None:
        line.cut(h.size, h.pick * 7 % 1 > 0.2, h.pick * 7 % 1 < 0.8)


# ---------------------------------------------------------------- clocks and disks


def _jump(h: Happening) -> int:
    return int((h.size - 0.5) * (4 if h.pick < 0.5 else 7200) * US)


@happens("wall_jump")
def wall_jump(world: World, h: Happening) -> None:
    world.disk.wall_offset_us += _jump(h)


@happens("host_wall_jump")
def host_wall_jump(world: World, h: Happening) -> None:
    if (host := one_of(world.hosts, h.pick)) is not None:
        host.wall_offset_us += _jump(h)


def _workers(world: World) -> list[Any]:
    found: list[Any] = [*world.gateways[-1:], *world.actors] + ([world.reaper] if world.reaper is not None else [])
    return [one for one in found if one.process.alive]


@happens("busy")
def busy(world: World, h: Happening) -> None:
    if (one := one_of(_workers(world), h.pick)) is not None:
        one.worker.fail_next = [(0, False)] * (1 + int(h.size * 4))


@happens("full")
def full(world: World, h: Happening) -> None:
    """The disk is full at some statement of the next transactions, their commit among them."""
    if (one := one_of(_workers(world), h.pick)) is not None:
        one.worker.fail_next = [
            (1 + int((h.size * 97 + n * 31) % 28), (h.size * 10 + n) % 1 < 0.5) for n in range(1 + int(h.size * 3))
        ]


@happens("slow_disk")
def slow_disk(world: World, h: Happening) -> None:
    """What is committed late meets a world that went on; the next best gateway has the most of it in flight."""
    if (one := one_of(_workers(world), h.pick**2)) is not None:
        one.worker.slow_until = world.kernel.now + int((1 + h.size * 6) * US)


@happens("reads_fail")
def reads_fail(world: World, h: Happening) -> None:
    if (one := one_of(_workers(world), h.pick)) is not None:
        one.worker.reads_fail = 1 + int(h.size * 4)


@happens("spool_full")
def spool_full(world: World, h: Happening) -> None:
    if (host := one_of(world.hosts, h.pick)) is not None:
        host.disk_full = True
        world.kernel.after(int((0.1 + h.size * 5) * US), setattr, host, "disk_full", False)


def _shim(world: World, h: Happening) -> Any:
    return one_of([shim for host in world.hosts for shim in host.shims.values() if shim.alive], h.pick)


@happens("kill_shim")
def kill_shim(world: World, h: Happening) -> None:
    if (shim := _shim(world, h)) is not None:
        shim.dies()


@happens("kill_agent")
def kill_agent(world: World, h: Happening) -> None:
    if (shim := _shim(world, h)) is not None:
        shim.agent_dies(None, 9)


@happens("store_backup")
def store_backup(world: World, h: Happening) -> None:
    world.disk.take_copy()


@happens("store_restore")
def store_restore(world: World, h: Happening) -> None:
    if world.disk.has_copy:
        world.restore_store()


@happens("spool_backup")
def spool_backup(world: World, h: Happening) -> None:
    if (host := one_of(world.hosts, h.pick)) is not None:
        host.take_copy()


@happens("spool_restore")
def spool_restore(world: World, h: Happening) -> None:
    """A wrapper falls, its spool is put back from a backup, and it is started again."""
    found = [host for host in world.hosts if host.copy is not None]
    if (host := one_of(found, h.pick)) is not None:
        if host.process is not None:
            _crash(world, host.process)
        host.go_back()
        world.watchman.doubles_allowed |= {eid for sid, eid in world.executions if sid == host.session_id}
