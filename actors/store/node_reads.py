"""Reads of nodes, invocations and tasks: each one short, complete, and over when the call returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.store.contract import ListPage, NodeFilter, NodeLog, TaskFilter


class NodeReads:
    """Mixed into the store."""

    def node(self, node_id: str) -> dict[str, Any]:
        raise NotImplementedError

    def nodes(self, wanted: NodeFilter) -> ListPage:
        raise NotImplementedError

    def node_events(self, node_id: str, after_seq: int, limit: int) -> NodeLog:
        raise NotImplementedError

    def nodes_with_outbox(self, after_n: int) -> tuple[int, list[str]]:
        raise NotImplementedError

    def lost_node_roles(self, gateway_id: str) -> list[tuple[str, str, str]]:
        raise NotImplementedError

    def invocation(self, invocation_id: str) -> dict[str, Any]:
        raise NotImplementedError

    def invocations(self, node_id: str, limit: int, cursor: str | None) -> ListPage:
        raise NotImplementedError

    def task(self, task_id: str) -> dict[str, Any]:
        raise NotImplementedError

    def tasks(self, wanted: TaskFilter) -> ListPage:
        raise NotImplementedError

    def flush_node_seen(self, seen: Sequence[tuple[str, str, str]]) -> None:
        raise NotImplementedError
