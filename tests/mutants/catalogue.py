"""The planted mutants: faults that somebody could really make, each with the test that must notice it.

A mutant is a change of text in one file. The old text must stand there exactly once, so that refactoring cannot orphan
a mutant silently (test_mutants.py looks). Every test that a mutant names must fail under it, and pass without it. Never
weaken a mutant until a test notices it: write the test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STORE = "tests/store/test_sessions.py::"
TOGETHER = "tests/store/test_together.py::"
KNOWLEDGE = "tests/store/test_stale_knowledge.py::"
INGEST = "tests/gateway/test_ingest.py::"
COMMIT = "tests/gateway/test_commit_first.py::"
BARRIER = "tests/gateway/test_order_barrier.py::"
FEED = "tests/gateway/test_feed.py::"
SOCKETS = "tests/gateway/test_frames_together.py::"
DECODE = "tests/gateway/test_decode.py::"
LINK = "tests/wrapper/test_link.py::"
SPOOL = "tests/wrapper/test_spool.py::"
NAMED = "tests/wrapper/test_references.py::"
KEPT = "tests/wrapper/test_durability.py::"
SHIM = "tests/wrapper/test_shim.py::"
WRAPPER = "tests/wrapper/test_end_to_end.py::"
PAIRS = "tests/law/nodes/test_pairs.py::"
NODES = "tests/store/test_nodes_registry.py::"
INVOKED = "tests/store/test_nodes_invocations.py::"
TASKS = "tests/store/test_nodes_tasks.py::"
UPLOADS = "tests/store/test_nodes_uploads.py::"
ORDERS = "tests/store/test_orders.py::"
NOTICES = "tests/store/test_orders_notices.py::"
ORDER_KNOWLEDGE = "tests/store/test_orders_knowledge.py::"
STATIONS = "tests/store/test_stations.py::"
HOT = "tests/store/test_hot.py::"
RUNS = "tests/store/test_runs.py::"
COMPRESSED = "tests/store/test_compressed.py::"


@dataclass(frozen=True, slots=True)
class Mutant:
    """name: a plain phrase of what went wrong. breaks: the guarantee (DESIGN §3) that it would break, or the section of
    DESIGN that it would make untrue."""

    name: str
    breaks: str
    file: str
    old: str
    new: str
    killers: tuple[str, ...]

    @property
    def slug(self) -> str:
        return "-".join("".join(c if c.isalnum() else " " for c in self.name.lower()).split())


CATALOGUE: Final[tuple[Mutant, ...]] = (
    # ------------------------------------------------------------ the append fence
    Mutant(
        "the append fence forgets the epoch",
        "G6",
        "actors/store/append.py",
        "and hot.epoch = {of}epoch and hot.execution_id",
        "and hot.execution_id",
        (HOT + "test_a_fenced_item_finds_no_warm_place",),
    ),
    Mutant(
        "the append's compare-and-set is dropped",
        "G1",
        "actors/store/append.py",
        '"and hot.acked_seq = {of}before "',
        '""',
        (
            STORE + "test_a_range_applies_once_whatever_is_sent_again",
            TOGETHER + "test_one_that_stands_already_is_a_duplicate_and_its_neighbours_stand",
        ),
    ),
    Mutant(
        "the high-water mark is one too high",
        "G1",
        "actors/store/append.py",
        "before, before + item.covers, rank",
        "before, before + item.covers + 1, rank",
        (STORE + "test_a_range_applies_once_whatever_is_sent_again",),
    ),
    Mutant(
        "an ended execution still takes events",
        "G4",
        "actors/store/append.py",
        "and status = 'running' and acked_seq",
        "and status not in ('queued', 'pending') and acked_seq",
        (STORE + "test_nothing_is_stored_before_started_and_nothing_after_the_end",),
    ),
    Mutant(
        "a range that ends at the mark is not seen as known (> for >=)",
        "G1",
        "actors/law/delivery.py",
        "if last <= acked:",
        "if last < acked:",
        ("tests/law/test_delivery.py::test_every_range_against_every_mark",),
    ),
    Mutant(
        "a gap of one record is let through",
        "G1",
        "actors/law/delivery.py",
        "if first > acked + 1:",
        "if first > acked + 2:",
        ("tests/law/test_delivery.py::test_every_range_against_every_mark",),
    ),
    # ------------------------------------------------------------ transactions
    Mutant(
        "the store is opened with synchronous=NORMAL",
        "G1",
        "actors/store/sqlite.py",
        'synchronous: str = "FULL",',
        'synchronous: str = "NORMAL",',
        ("tests/store/test_durability.py::test_every_commit_of_the_store_is_on_the_disk",),
    ),
    Mutant(
        "the spool is opened with synchronous=NORMAL",
        "G2",
        "wrapper/spoolfile.py",
        '"synchronous=FULL",',
        '"synchronous=NORMAL",',
        (KEPT + "test_every_commit_of_the_spool_is_on_the_disk",),
    ),
    Mutant(
        "the savepoint is dropped: half of a broken decision stays",
        "G5",
        "actors/store/sqlite.py",
        '            c.execute("rollback to item")\n            result = storage if',
        "            result = storage if",
        (KNOWLEDGE + "test_of_a_decision_that_breaks_nothing_stays_and_its_group_goes_on",),
    ),
    Mutant(
        "a group that is refused as a whole is taken up one by one in the same transaction",
        "G1",
        "actors/store/sqlite.py",
        "            raise _NotAllOfThem\n",
        "            return self._group(items)\n",
        (TOGETHER + "test_one_that_is_fenced_is_refused_alone_and_its_neighbours_stand",),
    ),
    Mutant(
        "what was tried together is not undone when one of them is refused",
        "G1",
        "actors/store/sqlite.py",
        '            c.execute("rollback to together")\n',
        "            pass\n",
        (TOGETHER + "test_one_that_is_fenced_is_refused_alone_and_its_neighbours_stand",),
    ),
    Mutant(
        "one failed decision takes its whole group with it",
        "G10",
        "actors/store/sqlite.py",
        "if isinstance(storage, StorageError) or not c.in_transaction:",
        "if True:",
        (KNOWLEDGE + "test_of_a_decision_that_breaks_nothing_stays_and_its_group_goes_on",),
    ),
    Mutant(
        "a failed commit is taken for a commit",
        "G10",
        "actors/store/sqlite.py",
        'result = work()\n            self._c.execute("commit")\n        except BaseException as error:\n'
        "            self._rollback()\n            raise self._ours(error) from error",
        'result = work()\n            try:\n                self._c.execute("commit")\n'
        "            except self._sqlite.Error:\n                self._rollback()\n"
        "        except BaseException as error:\n"
        "            self._rollback()\n            raise self._ours(error) from error",
        (KNOWLEDGE + "test_a_commit_that_fails_is_an_error_and_leaves_nothing",),
    ),
    Mutant(
        "an actor trusts what it remembers of its executions",
        "G5",
        "actors/store/perform.py",
        "        view = self._view(request)\n        decision = decide(view, request)\n",
        "        import dataclasses\n\n"
        '        memory = self.__dict__.setdefault("memory", {})\n'
        "        view = self._view(request)\n"
        "        of = request.session_id\n"
        "        known = {k: memory.setdefault((of, k, e.status), e) for k, e in view.executions.items()}\n"
        "        view = dataclasses.replace(view, executions=known)\n"
        "        decision = decide(view, request)\n",
        (
            KNOWLEDGE + "test_an_actor_sees_what_the_gateway_committed_behind_its_back",
            KNOWLEDGE + "test_a_second_incarnation_sees_what_the_first_has_done",
        ),
    ),
    Mutant(
        "the same request, asked again, is decided again",
        "G9",
        "actors/store/perform.py",
        "if key is None and (operator or",
        "if False and (operator or",
        (STORE + "test_an_interrupt_asked_again_after_a_lost_answer_never_hits_the_next",),
    ),
    Mutant(
        "a key answers for another body",
        "G9",
        "actors/store/perform.py",
        "if row[0] != key.body_hash:",
        "if row[0] is None:",
        (STORE + "test_an_idempotency_key_has_one_effect_and_one_answer",),
    ),
    # ------------------------------------------------------------ time and deadlines
    Mutant(
        "service time runs on while no door is open",
        "G8",
        "actors/store/sqlite.py",
        "t_ms = t_ms + min(max(? - wall_ms, 0), ?), wall_ms",
        "t_ms = t_ms + max(? - wall_ms, 0) + 0 * ?, wall_ms",
        (STORE + "test_an_outage_of_ours_shortens_nothing",),
    ),
    Mutant(
        "service time follows the wall clock back",
        "G8",
        "actors/store/sqlite.py",
        "t_ms = t_ms + min(max(? - wall_ms, 0), ?), wall_ms",
        "t_ms = t_ms + min(? - wall_ms, ?), wall_ms",
        (STORE + "test_a_clock_that_jumps_shortens_nothing",),
    ),
    Mutant(
        "a sweep believes in time that no tick has confirmed",
        "G8",
        "actors/store/perform.py",
        ".fetchone()[0] if sweep else self.service_ms_now()",
        ".fetchone()[0] if False else self.service_ms_now()",
        (KNOWLEDGE + "test_a_sweep_after_an_outage_counts_only_the_time_that_ticks_have_confirmed",),
    ),
    Mutant(
        "the grace deadline is not persisted",
        "G8",
        "actors/law/ownership.py",
        '        draft.arm("grace", str(epoch), draft.service_after(grace))\n',
        "",
        (STORE + "test_not_back_in_time_it_fails_once",),
    ),
    Mutant(
        "a deadline that is due exactly now waits (> for >=)",
        "G8",
        "actors/law/deadlines.py",
        "or now < view.deadline_due:",
        "or now <= view.deadline_due:",
        (KNOWLEDGE + "test_a_deadline_fires_at_its_very_millisecond_and_not_before",),
    ),
    Mutant(
        "a failed sweep moves the deadline",
        "G8",
        "actors/store/sqlite.py",
        "update deadlines set retry_ms = ? where session_id",
        "update deadlines set due_ms = ? where session_id",
        (KNOWLEDGE + "test_a_failed_sweep_is_tried_later_and_its_deadline_does_not_move",),
    ),
    Mutant(
        "the interrupt's ladder is not armed again at reconnect",
        "G7",
        "actors/law/execution.py",
        "    if execution.interrupt_id is not None:\n        arm_ladder(draft, execution)\n",
        "",
        (STORE + "test_the_ladder_waits_for_an_owner_and_grace_bounds_it",),
    ),
    Mutant(
        "the ladder comes to its end and nothing follows",
        "G7",
        "actors/law/deadlines.py",
        '                fail_execution(draft, eid, "interrupt_timeout")\n',
        "                return\n",
        (STORE + "test_a_rejected_interrupt_changes_nothing_and_the_ladder_ends_it",),
    ),
    Mutant(
        "the gateway's own freeze counts against its peers",
        "G8",
        "actors/gateway/door.py",
        "self._fair += min(at - self._at, self.STEP_MAX_S)",
        "self._fair += at - self._at",
        ("tests/gateway/test_loops.py::test_a_fair_clock_does_not_run_while_nobody_listened",),
    ),
    # ------------------------------------------------------------ executions
    Mutant(
        "an interrupt hits whatever is active",
        "G7",
        "actors/law/execution.py",
        "target = view.executions.get(request.execution_id) if request.execution_id else view.active",
        "target = view.active",
        (STORE + "test_an_interrupt_never_touches_the_next_execution",),
    ),
    Mutant(
        "an interrupt before the start leaves the start on its way",
        "G7",
        "actors/law/failure.py",
        "draft.do(DisarmExecution(execution_id), Withdraw(execution_id))",
        "draft.do(DisarmExecution(execution_id))",
        (STORE + "test_an_interrupt_before_the_start_ends_it_at_once",),
    ),
    Mutant(
        "a started that comes after the end is acknowledged",
        "G13",
        "actors/law/execution.py",
        'return Decision(Nacked("terminal", detail=e.cause or e.status))  # never Acked',
        "return Decision(Acked(1))  # never Acked",
        ("tests/law/test_pairs.py::test_a_started_that_comes_after_the_end_never_opens_the_gate",),
    ),
    Mutant(
        "the terminal event is not the last",
        "G4",
        "actors/law/execution.py",
        'draft.append("execution.late_final", {"execution_id": execution.execution_id, "final": final})',
        'draft.append("execution.late_final", {"final": final}, execution.execution_id)',
        (STORE + "test_a_late_final_is_told_once_and_is_not_the_executions_event",),
    ),
    Mutant(
        "a late final is told each time",
        "G4",
        "actors/law/execution.py",
        "if not execution.late_final:",
        "if True:",
        (STORE + "test_a_late_final_is_told_once_and_is_not_the_executions_event",),
    ),
    Mutant(
        "an end promotes nobody",
        "G12",
        "actors/law/execution.py",
        "        abort=False,\n    )\n    promote(draft)\n    return draft.decide(Acked(frame.seq))",
        "        abort=False,\n    )\n    return draft.decide(Acked(frame.seq))",
        (STORE + "test_a_second_submit_waits_and_the_eleventh_waiting_is_refused",),
    ),
    Mutant(
        "a lost execution is left running",
        "G12",
        "actors/law/ownership.py",
        "    fail_execution(draft, eid, cause, wrapper_id=hello.wrapper_id)  # type: ignore[arg-type]\n",
        "",
        (STORE + "test_the_same_wrapper_that_knows_nothing_lost_it",),
    ),
    Mutant(
        "an approval is decided twice",
        "G9",
        "actors/law/approvals.py",
        '    if approval.state != "open":\n        return Decision(\n            Refuse(',
        '    if approval.state == "cancelled":\n        return Decision(\n            Refuse(',
        (STORE + "test_approvals_are_decided_once",),
    ),
    # ------------------------------------------------------------ ownership
    Mutant(
        "a stale close is honoured",
        "G6",
        "actors/law/ownership.py",
        'if s is None or s.link != "connected" or s.connection_id != request.connection_id:',
        'if s is None or s.link != "connected":',
        (INGEST + "test_the_close_of_a_superseded_socket_writes_nothing",),
    ),
    Mutant(
        "an attempt that came before wins again (> for >=)",
        "G6",
        "actors/law/owner.py",
        "attempt <= owner.attempt:",
        "attempt < owner.attempt:",
        (STORE + "test_a_late_open_never_wins",),
    ),
    Mutant(
        "a control frame of a fenced connection counts",
        "G6",
        "actors/law/owner.py",
        "(owner.connection_id, owner.connection_epoch) == (connection_id, epoch)",
        "True",
        ("tests/law/test_pairs.py::test_a_frame_of_another_connection_changes_nothing",),
    ),
    Mutant(
        "grace ends what was not active when the owner was lost",
        "G12",
        "actors/law/deadlines.py",
        "if active is not None and active.execution_id == lost.grace_execution_id:",
        "if active is not None:",
        (STORE + "test_grace_is_about_what_was_active_when_the_owner_was_lost",),
    ),
    Mutant(
        "a flush of another connection is life",
        "G12",
        "actors/store/sqlite.py",
        "where id = seen.sid and connection_id = seen.con and link = 'connected'",
        "where id = seen.sid and link = 'connected'",
        (STORE + "test_a_stale_flush_of_another_connection_is_not_life",),
    ),
    Mutant(
        "a close that the store did not hear is forgotten",
        "G12",
        "actors/gateway/door.py",
        "                if not error.retryable:\n                    return",
        "                if True:\n                    return",
        (COMMIT + "test_a_close_that_a_failing_store_did_not_hear_is_told_again",),
    ),
    Mutant(
        "a newcomer takes the session under the old epoch",
        "G6",
        "actors/law/ownership.py",
        "    epoch = draft.take_epoch()\n    draft.do(DisarmGrace())\n    draft.set_session(\n",
        "    epoch = s.connection_epoch\n    draft.do(DisarmGrace())\n    draft.set_session(\n",
        (KNOWLEDGE + "test_what_a_fenced_connection_still_had_at_the_writer_is_refused",),
    ),
    Mutant(
        "a connect through a dead gateway owns the session",
        "G12",
        "actors/law/ownership.py",
        "    if not view.door_open:\n",
        "    if False:\n",
        (STORE + "test_a_connect_through_a_dead_gateway_owns_nothing",),
    ),
    Mutant(
        "what runs elsewhere is resumed here",
        "G13",
        "actors/law/ownership.py",
        'return e.status == "running" and e.wrapper_id != wrapper_id',
        "return False",
        (STORE + "test_what_runs_elsewhere_is_never_resumed_here",),
    ),
    Mutant(
        "a start that nobody has heard does not go out again",
        "G12",
        "actors/law/ownership.py",
        "        draft.do(RequeueStart(eid))\n        return\n",
        "        return\n",
        (STORE + "test_a_pending_start_goes_out_again_to_whoever_owns",),
    ),
    # ------------------------------------------------------------ the gateway's lane
    Mutant(
        "the order barrier is dropped: a control frame overtakes events",
        "G1",
        "actors/gateway/connection.py",
        "            elif self._in_flight:\n                break  # everything else",
        "            elif False:\n                break  # everything else",
        (BARRIER + "test_a_control_frame_waits_until_every_event_before_it_is_committed",),
    ),
    Mutant(
        "events overtake the control frame before them",
        "G1",
        "actors/gateway/connection.py",
        "                self._controlling = True\n                self.door.spawn(self._control(item))",
        "                self._drop_head()\n                self.door.spawn(self._control(item))",
        (BARRIER + "test_events_wait_for_the_answer_to_the_control_frame_before_them",),
    ),
    Mutant(
        "an ack is said before the commit",
        "G1",
        "actors/gateway/connection.py",
        "        line.sent(last)\n",
        "        line.sent(last)\n        line.committed(last)\n        self._owe(head.execution_id, line)\n"
        "        self.flush_acks()\n",
        (COMMIT + "test_nothing_is_acknowledged_or_shown_before_its_commit",),
    ),
    Mutant(
        "a watcher sees events before their commit",
        "G3",
        "actors/gateway/connection.py",
        "        line.sent(last)\n",
        "        line.sent(last)\n        if (feed := self.door.hub.feeds.get(self.session_id)) is not None:\n"
        "            from actors.gateway.feed import Entry\n\n"
        "            said = [orjson.dumps({'seq': feed.head + 1 + i, 'type': e.type, 'data': orjson.loads(e.data)})"
        " for i, e in enumerate(events)]\n"
        "            feed.publish([Entry(feed.head + 1 + i, e.type, head.execution_id, said[i].decode())"
        " for i, e in enumerate(events)])\n",
        (COMMIT + "test_nothing_is_acknowledged_or_shown_before_its_commit",),
    ),
    Mutant(
        "a storage error is acknowledged",
        "G10",
        "actors/gateway/connection.py",
        "        else:\n            self.storage_failed(result)\n",
        "        else:\n            line.committed(item.first + item.covers - 1)\n"
        "            self._owe(item.execution_id, line)\n            self.flush_acks()\n"
        "            self.storage_failed(result)\n",
        (INGEST + "test_after_a_storage_error_nothing_is_acknowledged_and_the_wrapper_comes_back",),
    ),
    Mutant(
        "something is acknowledged after a storage error",
        "G10",
        "actors/gateway/connection.py",
        "        if self.over:\n            self._owed.clear()",
        "        if False:\n            self._owed.clear()",
        (COMMIT + "test_after_a_storage_error_nothing_more_is_acknowledged",),
    ),
    Mutant(
        "a refusal acknowledges what nobody has committed",
        "G1",
        "actors/gateway/lines.py",
        "        if not sure:\n            self.queued = None\n            return\n",
        "",
        ("tests/gateway/test_lines.py::test_of_an_unknown_line_nothing_is_acknowledged_without_the_store",),
    ),
    Mutant(
        "commands go out before the wrapper is ready",
        "G7",
        "actors/gateway/peer.py",
        "        if self.ready and not self.over:\n            self._fetch_again = True",
        "        if not self.over:\n            self._fetch_again = True",
        (INGEST + "test_commands_flow_once_the_wrapper_is_ready_in_order_and_once",),
    ),
    Mutant(
        "a command goes out twice on one connection",
        "G9",
        "actors/gateway/connection.py",
        "            self.sent_n = row.n\n",
        "",
        (INGEST + "test_commands_flow_once_the_wrapper_is_ready_in_order_and_once",),
    ),
    Mutant(
        "one connection's trouble after a group silences the others",
        "G11",
        "actors/gateway/door.py",
        "                connection.after_group()\n            except Exception as error:",
        "                connection.after_group()\n            except NotImplementedError as error:",
        (COMMIT + "test_a_connection_that_fails_after_a_group_keeps_no_other_from_its_acks",),
    ),
    Mutant(
        "one answer's trouble silences the rest of its group",
        "G11",
        "actors/store/worker.py",
        "                    done(result)\n                except Exception as error:",
        "                    done(result)\n                except NotImplementedError as error:",
        ("tests/store/test_answers.py::test_an_answer_that_is_handled_badly_keeps_no_other_from_being_told",),
    ),
    Mutant(
        "frames received before a close are dropped",
        "G6",
        "actors/gateway/sockets.py",
        "            await peer.drained()\n",
        "            pass\n",
        (BARRIER + "test_frames_received_before_a_close_are_applied_before_it",),
    ),
    Mutant(
        "a peer may send far beyond its window",
        "G11",
        "actors/gateway/connection.py",
        "if self._held > self._held_max or len(lane) > LANE_FRAMES:",
        "if False:",
        (INGEST + "test_who_ignores_the_window_altogether_breaks_the_protocol",),
    ),
    Mutant(
        "an actor that is believed awake is believed for ever",
        "G5",
        "actors/mailbox.py",
        "            except (Asleep, OutcomeUnknown):\n                pass",
        "            except (Asleep, OutcomeUnknown):\n                raise",
        ("tests/gateway/test_mailbox.py::test_an_actor_that_is_not_there_costs_nothing_but_the_question",),
    ),
    Mutant(
        "an actor that leaves signs off its successor",
        "G5",
        "actors/store/sqlite.py",
        '"delete from actors where name = ? and incarnation = ?"',
        '"delete from actors where name = ? and ? is not null"',
        ("tests/store/test_processes.py::test_actors_register_and_are_forgotten_by_incarnation",),
    ),
    Mutant(
        "one failed sweep ends the reaper's tick",
        "G8",
        "actors/reaper.py",
        'except (TimeoutError, HoldfastError) as error:\n        emit("reaper.sweep_failed"',
        'except TimeoutError as error:\n        emit("reaper.sweep_failed"',
        ("tests/runtime/test_reaper.py::test_a_sweep_that_fails_keeps_no_other_from_its_turn_and_is_tried_again",),
    ),
    # ------------------------------------------------------------ fan-out
    Mutant(
        "the newest batch is handed to whoever comes, wherever they stand",
        "G3",
        "actors/gateway/feed.py",
        "if newest and newest[0].seq == cursor + 1 and len(newest) <= len(ring):",
        "if newest and len(newest) <= len(ring):",
        (FEED + "test_behind_a_cursor_stands_exactly_what_comes_next_or_nothing",),
    ),
    Mutant(
        "a frame is added to the one before it wherever it begins",
        "G2",
        "actors/gateway/decode.py",
        "            seq != run.last + 1\n            or type",
        "            type",
        (DECODE + "test_frames_read_together_are_what_each_is_by_itself",),
    ),
    Mutant(
        "a frame is added to the one before it whoever's it is",
        "G2",
        "actors/gateway/decode.py",
        'or frame["execution_id"] != run.execution_id',
        "or False",
        (DECODE + "test_frames_read_together_are_what_each_is_by_itself",),
    ),
    Mutant(
        "frames read together are taken for what they are only together",
        "G2",
        "actors/gateway/decode.py",
        "if len(found) != 2 * len(raws) - 1 or found[1::2].count(_WORD) != len(raws) - 1:",
        "if len(frames_) != len(raws):",
        (DECODE + "test_no_frame_can_lend_another_its_end",),
    ),
    Mutant(
        "a gateway whose place another has taken goes on",
        "G12",
        "actors/store/sqlite.py",
        'if not self._c.execute("update gateways set seen_at_ms = ? where id = ?", (now, gateway_id)).rowcount:',
        'if self._c.execute("update gateways set seen_at_ms = ? where id = ?", (now, gateway_id)).rowcount < 0:',
        ("tests/store/test_sessions.py::test_a_gateway_whose_place_another_has_taken_is_told_to_end",),
    ),
    Mutant(
        "a long group is kept when everybody has it",
        "G11",
        "actors/gateway/feed.py",
        "if self._bytes > self._limit_bytes and all(one.cursor >= self.head for one in self.subscribers):",
        "if False:",
        (FEED + "test_a_group_longer_than_the_tail_is_kept_until_its_live_readers_have_it",),
    ),
    Mutant(
        "a long group goes out as one frame",
        "G11",
        "actors/gateway/feed.py",
        "return found if self._bytes <= self._limit_bytes else self._frameful(found)",
        "return found",
        (
            FEED + "test_a_group_longer_than_the_tail_is_kept_until_its_live_readers_have_it",
            FEED + "test_a_frame_of_a_long_group_is_counted_in_bytes_and_not_in_characters",
        ),
    ),
    Mutant(
        "frames that stand before a close in the same read are not taken",
        "G2",
        "actors/gateway/sockets.py",
        "                together.give()  # what came before it, also in this very turn of the loop\n",
        "",
        (SOCKETS + "test_what_was_said_before_a_close_is_taken_whatever_stands_around_it",),
    ),
    Mutant(
        "a group has no bound of its own",
        "G11",
        "actors/gateway/feed.py",
        "(n > newest or size > self._limit_group)",
        "(n > newest)",
        (FEED + "test_a_group_has_its_bound_too_and_only_the_newest_is_one",),
    ),
    Mutant(
        "what comes after a close is taken all the same",
        "G6",
        "actors/gateway/wire.py",
        "            self._reader.take = None\n",
        "            pass\n",
        ("tests/gateway/test_frames_together.py::test_what_comes_after_a_close_is_not_taken",),
    ),
    Mutant(
        "a live batch is delivered without the contiguity rule",
        "G3",
        "actors/gateway/feed.py",
        "if ring and entries[0].seq != ring[-1].seq + 1:",
        "if False:",
        (FEED + "test_a_batch_that_does_not_continue_the_ring_sends_readers_to_the_store",),
    ),
    Mutant(
        "a cursor stands one before what it has read",
        "G3",
        "actors/gateway/feed.py",
        "self.cursor = entries[-1].seq\n",
        "self.cursor = entries[-1].seq - 1\n",
        (FEED + "test_readers_of_any_speed_see_every_event_once_and_in_order",),
    ),
    Mutant(
        "a page that was read ahead is used wherever the cursor stands now",
        "G3",
        "actors/gateway/feed.py",
        "if asked is None or asked.after != self.cursor:",
        "if asked is None:",
        (FEED + "test_what_was_read_ahead_is_put_away_when_the_ring_was_quicker",),
    ),
    Mutant(
        "who was handed a frame is not told of what the ring does not hold",
        "G3",
        "actors/gateway/feed.py",
        "return self.cursor >= feed.head and not (self._over or feed.gone)",
        "return not (self._over or feed.gone)",
        (FEED + "test_who_has_no_room_stands_before_a_hole_or_has_something_waiting_takes_a_turn",),
    ),
    Mutant(
        "a hint is treated as truth",
        "G3",
        "actors/gateway/feed.py",
        "self.cursor = max(self.cursor, page.scanned_to)",
        "self.cursor = max(self.cursor, page.scanned_to, asked.head)",
        (FEED + "test_a_hint_of_rows_that_are_not_there_does_no_harm",),
    ),
    Mutant(
        "a cursor at the edge of retention is reset (> for >=)",
        "G3",
        "actors/gateway/feed.py",
        "elif self.cursor + 1 < first_seq:",
        "elif self.cursor + 1 <= first_seq:",
        (FEED + "test_a_cursor_at_the_edge_needs_no_reset",),
    ),
    Mutant(
        "a cursor into another log is honoured",
        "G3",
        "actors/gateway/feed.py",
        "if came_from is not None and came_from != stream_id:",
        "if False:",
        (FEED + "test_a_cursor_that_cannot_be_honoured_is_reset_and_goes_on_from_the_first",),
    ),
    Mutant(
        "of several pages of one read the last is told first",
        "G3",
        "actors/gateway/feed.py",
        "page = pages[asked.told]",
        "page = pages[-1]",
        (FEED + "test_pages_are_read_ahead_while_there_is_room_and_their_room_comes_back",),
    ),
    # ------------------------------------------------------------ long events
    Mutant(
        "a page of long events is as long as what is kept of them allows",
        "§4",
        "actors/store/replay.py",
        "octet_length(data) + run_bytes",
        "octet_length(data)",
        (COMPRESSED + "test_a_page_is_bounded_by_what_is_sent_not_by_what_is_kept",),
    ),
    Mutant(
        "bits that the disk has turned are shown to watchers",
        "G1",
        "actors/store/compressed.py",
        "zstd.CompressionParameter.checksum_flag: 1,",
        "zstd.CompressionParameter.checksum_flag: 0,",
        (COMPRESSED + "test_bits_that_turned_on_the_disk_are_an_error_and_never_shown",),
    ),
    Mutant(
        "what was compressed is handed on as if it were text",
        "G1",
        "actors/store/rows.py",
        "iif(typeof(data) = 'blob', plain(data), data)",
        "cast(data as text)",
        (COMPRESSED + "test_what_gets_smaller_is_kept_small_and_read_word_for_word",),
    ),
    # ------------------------------------------------------------ runs
    Mutant(
        "a page that begins within a run says what the cursor has passed",
        "G3",
        "actors/store/replay.py",
        "[passed] if passed > 0 else lines",
        "[0] if passed < 0 else lines",
        (RUNS + "test_a_page_begins_and_ends_anywhere_in_a_run",),
    ),
    Mutant(
        "a page of what stands before leaves out the run that reaches beyond",
        "§4",
        "actors/store/replay.py",
        "values += [before_seq + rows.RUN_EVENTS, before_seq]",
        "values += [before_seq, before_seq]",
        (RUNS + "test_a_page_begins_and_ends_anywhere_in_a_run",),
    ),
    Mutant(
        "runs of one group get the words of their neighbours",
        "G1",
        "actors/store/hot.py",
        "last_insert_rowid() - ?2 + 1 + key",
        "last_insert_rowid() - ?2 + key",
        (RUNS + "test_items_of_a_group_have_their_own_words",),
    ),
    Mutant(
        "the words of a run stay when it goes",
        "§4",
        "actors/store/retention.py",
        "delete from runs where id in",
        "delete from runs where 0 and id in",
        (
            RUNS + "test_retention_takes_a_run_whole_and_its_words_with_it",
            RUNS + "test_a_deleted_session_takes_its_words_with_it",
        ),
    ),
    Mutant(
        "a run that does not fit the chunk goes all the same",
        "§4",
        "actors/store/retention.py",
        "full = old and gone + length > limit",
        "full = old and gone >= limit",
        (RUNS + "test_a_run_that_does_not_fit_the_chunk_is_left_to_the_next",),
    ),
    # ------------------------------------------------------------ hot and fresh
    Mutant(
        "a decision is made before the session is settled",
        "G5",
        "actors/store/perform.py",
        "        self.settle(sid)\n",
        "",
        (HOT + "test_a_decision_of_another_process_is_about_what_stands_now",),
    ),
    Mutant(
        "nobody stops a decision about a session that is not settled",
        "G5",
        "actors/store/schema.py",
        "select raise(abort, 'settle the session first')",
        "select 1",
        (HOT + "test_who_forgets_to_settle_is_refused",),
    ),
    Mutant(
        "what waited is packed behind what came after it",
        "G3",
        "actors/store/append.py",
        "            self.pack(ended)\n",
        "            pass\n",
        (HOT + "test_whatever_comes_behind_them_keeps_its_place",),
    ),
    Mutant(
        "a sweep deletes what only stands in fresh",
        "G1",
        "actors/store/hot.py",
        'h.last_seq - h.fresh"\n',
        'h.last_seq"\n',
        (HOT + "test_a_sweep_while_some_wait_loses_none",),
    ),
    Mutant(
        "a chain of fresh events that has a hole is packed as if it were whole",
        "G1",
        "actors/store/hot.py",
        "group by head having max(first)) ",
        "group by head) ",
        (HOT + "test_a_chain_with_a_hole_is_an_error_and_not_a_shorter_log",),
    ),
    Mutant(
        "settling undoes the progress that a heartbeat told",
        "G8",
        "actors/store/hot.py",
        "iif(last_progress_service_ms > ?2, last_progress_at_ms, ?3)",
        "?3",
        (HOT + "test_progress_of_a_heartbeat_is_not_undone",),
    ),
    Mutant(
        "a run reaches over days",
        "§4",
        "actors/store/append.py",
        "{{of}}rank and :wall - since_ms between 0 and {FRESH_SPAN_MS}",
        "{{of}}rank and {FRESH_SPAN_MS}",
        (HOT + "test_a_run_is_of_one_minute_so_that_retention_is_exact",),
    ),
    Mutant(
        "the words of a deleted session stay in fresh",
        "§4",
        "actors/store/retention.py",
        "older_than_ms=max(self.wall_ms() - FRESH_KEEP_MS, before_ms)",
        "older_than_ms=0",
        (HOT + "test_the_janitor_leaves_nothing_fresh_that_is_old",),
    ),
    # ------------------------------------------------------------ the wrapper
    Mutant(
        "the gate opens before the ack",
        "G13",
        "wrapper/runner.py",
        "if run.opened or run.acked_seq < 1 or run.ladder",
        "if run.opened or run.ladder",
        (WRAPPER + "test_the_gate_stays_shut_until_started_is_acknowledged",),
    ),
    Mutant(
        "the child takes the death of its shim for an open gate",
        "G13",
        "wrapper/shim.py",
        '                if os.read(gate_r, 1) != b"1":\n',
        '                if os.read(gate_r, 1) == b"0":\n',
        (SHIM + "test_a_gate_that_is_not_opened_never_opens",),
    ),
    Mutant(
        "the gate opens when the wrapper dies",
        "G13",
        "wrapper/shim.py",
        '            if not self.opening:\n                self.shut = True  # "the gate',
        '            if not self.opening:\n                self.opening = True  # "the gate',
        (SHIM + "test_a_gate_that_is_not_opened_never_opens",),
    ),
    Mutant(
        "a start of an ended execution is new",
        "G13",
        "wrapper/spool.py",
        "            new = not self.remembers(execution_id)\n",
        "            new = self.get(execution_id) is None\n",
        (SPOOL + "test_a_start_is_new_only_once_even_after_its_end",),
    ),
    Mutant(
        "a record is forgotten when it is sent",
        "G2",
        "wrapper/app.py",
        "                await socket.send(frame.text)\n                sent = True\n",
        "                await socket.send(frame.text)\n                sent = True\n"
        "                await self.call(self.spool.acked, plan.execution_id, frame.last)\n",
        ("tests/wrapper/test_promises.py::test_what_was_sent_is_kept_until_it_is_acknowledged",),
    ),
    Mutant(
        "a full spool trims what was not acknowledged",
        "G2",
        "wrapper/records.py",
        'and not (self.policy == "trim" and self._trim()):',
        "and not self._trim():",
        (KEPT + "test_a_full_spool_that_blocks_keeps_every_record_that_nobody_acknowledged",),
    ),
    Mutant(
        "a record that is acknowledged in part is forgotten",
        "G2",
        "wrapper/records.py",
        "AND seq <= ? AND to_seq <= ? ORDER BY seq LIMIT ?",
        "AND seq <= ? AND seq <= ? ORDER BY seq LIMIT ?",
        (KEPT + "test_a_gap_that_is_acknowledged_in_part_is_kept",),
    ),
    Mutant(
        "a record is stored before the bytes that it names are synced",
        "G1",
        "wrapper/records.py",
        "            self._make_durable(no, named)\n",
        "            pass\n",
        (NAMED + "test_the_bytes_are_synced_before_the_record_is_there",),
    ),
    Mutant(
        "a segment goes while a record that nobody acknowledged names it",
        "G2",
        "wrapper/records.py",
        "for segment, seq in named.items() if seq <= up_to]",
        "for segment, seq in named.items()]",
        (NAMED + "test_a_segment_stays_until_the_last_record_in_it_is_acknowledged_also_through_a_restart",),
    ),
    Mutant(
        "a segment that was read goes, whoever names it",
        "G2",
        "wrapper/segments.py",
        "        if index < named_from:\n",
        "        if index < before:\n",
        (NAMED + "test_a_segment_stays_until_the_last_record_in_it_is_acknowledged_also_through_a_restart",),
    ),
    Mutant(
        "named output that is not there is passed over in silence",
        "G1",
        "wrapper/records.py",
        '            return "gap", dumps({"bytes": source.length, "reason": "trimmed"})\n',
        '            data = b""\n',
        (NAMED + "test_output_that_somebody_took_away_becomes_a_gap_and_the_numbers_stay",),
    ),
    Mutant(
        "the read position is not stored with its records",
        "G2",
        "wrapper/records.py",
        "UPDATE executions SET segment = ?, offset = ?, driver_state = ? WHERE no = ?",
        "UPDATE executions SET segment = ? * 0, offset = ? * 0, driver_state = ? WHERE no = ?",
        (SPOOL + "test_everything_survives_a_reopening",),
    ),
    Mutant(
        "a ghost's frame counts",
        "G6",
        "wrapper/link.py",
        "        if attempt != self.attempt:\n            return []\n        match self.phase",
        "        match self.phase",
        (LINK + "test_an_old_socket_is_a_ghost_whatever_it_says",),
    ),
    Mutant(
        "records are sent before the directives",
        "G1",
        "wrapper/link.py",
        "        if self.phase is not Phase.LIVE:\n            return None\n        flying",
        "        if self.phase not in (Phase.LIVE, Phase.GREETING):\n            return None\n        flying",
        (LINK + "test_directives_come_before_ready_and_nothing_is_sent_before_it",),
    ),
    Mutant(
        "the wrapper's window has no limit",
        "G11",
        "wrapper/link.py",
        "        if flying and flying + size > self.window_bytes:\n            return False\n",
        "",
        (LINK + "test_at_most_a_window_is_in_flight_but_a_larger_record_goes_alone",),
    ),
    Mutant(
        "the wrapper interrupts whatever it runs",
        "G7",
        "wrapper/commands.py",
        "return run if run is not None and run.execution_id == execution_id else None",
        "return run",
        ("tests/wrapper/test_promises.py::test_an_interrupt_of_one_that_waits_does_not_touch_the_one_that_runs",),
    ),
    # ------------------------------------------------------------ nodes
    Mutant(
        "a node's result counts whatever connection it comes over",
        "G6",
        "actors/law/nodes/invocations.py",
        "known.node_id == frame.node_id and known.connection_id == frame.connection_id",
        "known.node_id == frame.node_id",
        (PAIRS + "test_invocation_pair",),
    ),
    Mutant(
        "a newcomer leaves what waits on the old connection of a node",
        "G6",
        "actors/law/nodes/connect.py",
        '        lose(draft, owner.connection_id, "DISCONNECTED", "another connection took the role over")\n',
        "",
        (PAIRS + "test_invocation_pair",),
    ),
    Mutant(
        "the late close of a node's old connection is honoured",
        "G6",
        "actors/law/nodes/connect.py",
        " or role.connection_id != request.connection_id:",
        ":",
        (NODES + "test_the_same_node_twice_and_the_old_socket_closed_late_fifty_times",),
    ),
    Mutant(
        "a device's report of its last connection is believed on the next one",
        "G5",
        "actors/law/nodes/connect.py",
        "        presence_at_ms=view.wall_ms,\n        synced=False,\n    )\n    draft.do(Remember",
        "        presence_at_ms=view.wall_ms,\n    )\n    draft.do(Remember",
        (TASKS + "test_news_of_an_older_connection_is_no_news",),
    ),
    Mutant(
        "a recorder that was in doubt has no grace",
        "G8",
        "actors/law/nodes/connect.py",
        "(at_work or may_be or bool(draft.busy_tasks()))",
        "(at_work or may_be)",
        (TASKS + "test_a_recorder_that_was_in_doubt_when_it_was_lost_still_has_its_grace",),
    ),
    Mutant(
        "a command is sent to a node though its time is over",
        "G8",
        "actors/law/nodes/invocations.py",
        '    elif (code := overdue(view, known)) is not None:\n        settle(draft, known, code, "it was',
        '    elif False and (code := overdue(view, known)) is not None:\n        settle(draft, known, code, "it was',
        (PAIRS + "test_invocation_pair",),
    ),
    Mutant(
        "progress does not hold the idle deadline off",
        "G8",
        "actors/law/nodes/invocations.py",
        '        draft.arm("invocation_idle", known.invocation_id, known.idle_timeout_s)\n    draft.set_invocation',
        "    draft.set_invocation",
        (INVOKED + "test_progress_is_in_order_and_holds_the_idle_deadline_off",),
    ),
    Mutant(
        "the list of allowed commands is not looked at again at dispatch",
        "G5",
        "actors/law/nodes/invocations.py",
        "    if not may_use(known.command, role, view.node, view.policy.node_commands):\n        settle(",
        "    if False:\n        settle(",
        (INVOKED + "test_the_list_is_looked_at_again_at_dispatch",),
    ),
    Mutant(
        "what a device says counts each time it is decided",
        "G9",
        "actors/law/nodes/requests.py",
        "    return isinstance(request, NodeEvent) or (isinstance",
        "    return False and (isinstance",
        (
            NODES + "test_a_log_of_its_own_is_kept_apart_from_ours",
            UPLOADS + "test_a_try_that_failed_counts_once_however_often_it_is_decided",
        ),
    ),
    Mutant(
        "a token holds when its socket was let in, and not when it connects",
        "G5",
        "actors/law/nodes/connect.py",
        "    if not view.vouched:\n",
        "    if False:\n",
        ("tests/gateway/test_nodes.py::test_a_hello_that_was_on_its_way_does_not_bring_a_forgotten_node_back",),
    ),
    # ------------------------------------------------------------ work orders
    Mutant(
        "an order is moved on whatever status it has",
        "G5",
        "actors/store/orders.py",
        'order_rows.ORDERS.update(changes, "id = ? and status = ?")',
        'order_rows.ORDERS.update(changes, "id = ? and ? is not null")',
        (ORDER_KNOWLEDGE + "test_an_order_that_somebody_else_has_ended_is_not_moved_by_an_old_decision",),
    ),
    Mutant(
        "one task more than the quota",
        "§7",
        "actors/law/orders/batches.py",
        "wanted > quota.remaining(view.order, draft.counts)",
        "wanted > quota.remaining(view.order, draft.counts) + 1",
        (ORDERS + "test_a_dispatch_that_cannot_be_is_refused_with_the_numbers",),
    ),
    Mutant(
        "the newest pending task is completed first",
        "§7",
        "actors/store/orders.py",
        "and status = 'pending' order by n limit ?",
        "and status = 'pending' order by n desc limit ?",
        (ORDERS + "test_the_oldest_pending_are_completed_and_each_answer_adds_up",),
    ),
    Mutant(
        "the oldest pending task is taken away first",
        "§7",
        "actors/law/orders/batches.py",
        "view.unbegun.get(wish.key, ())[::-1]",
        "view.unbegun.get(wish.key, ())",
        (ORDERS + "test_the_newest_pending_go_first_and_what_has_begun_never",),
    ),
    Mutant(
        "a task that a device completed means nothing for its order",
        "§7",
        "actors/store/nodes.py",
        "followed = self.follow_tasks(view, decision, request)",
        "followed: tuple[fx.Speech, ...] = ()",
        (
            STATIONS + "test_a_rebound_station_takes_its_waiting_batch_along_to_the_device",
            ORDERS + "test_a_recording_that_is_given_back_to_a_recalled_batch_ends_there",
        ),
    ),
    Mutant(
        "a device may be told twice for one cause",
        "§7",
        "actors/store/schema.py",
        "create unique index order_notices_once",
        "create index order_notices_once",
        (ORDER_KNOWLEDGE + "test_a_second_notice_for_the_same_cause_and_device_is_a_mistake_of_ours",),
    ),
    Mutant(
        "a notice that nobody heard of is never said",
        "§7",
        "actors/law/orders/draft.py",
        'InsertNotice(notice), ArmNode(node_id, "notice", notice.notice_id, due_ms)',
        "InsertNotice(notice)",
        (NOTICES + "test_what_nobody_heard_is_said_by_the_deadline",),
    ),
    Mutant(
        "a device deletes a recording that nobody has stored",
        "§7",
        "actors/law/nodes/uploads.py",
        ' or (task.status == "completed" and task.uploaded_at_ms is None)',
        "",
        (ORDERS + "test_a_recording_of_what_an_external_device_has_done_is_a_surplus",),
    ),
    Mutant(
        "a node is taken from work that is under way",
        "§7",
        "actors/law/orders/stations.py",
        "    if busy:\n        return",
        "    if busy and False:\n        return",
        (STATIONS + "test_a_node_is_not_taken_from_work_that_is_under_way",),
    ),
)
