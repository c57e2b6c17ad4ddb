"""Which of its declared commands a node may be asked: on admission, and again at dispatch."""

from __future__ import annotations

from actors.law.nodes.model import Node, Role


def allowed(command: str, policy: tuple[str, ...], allow: tuple[str, ...] | None) -> bool:
    """Both lists have to say so: the service's, and the node's own if it has one."""
    return _matches(command, policy) and (allow is None or _matches(command, allow))


def _matches(command: str, patterns: tuple[str, ...]) -> bool:
    """`*` stands at an end only and is any ending: no pattern here can be slow."""
    return any(command.startswith(p[:-1]) if p.endswith("*") else command == p for p in patterns)


def may_use(command: str, role: Role, node: Node, policy: tuple[str, ...]) -> bool:
    """Declared by whoever holds the role, and allowed now."""
    return command in role.commands and allowed(command, policy, node.allow)
