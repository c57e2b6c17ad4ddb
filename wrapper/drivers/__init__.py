"""How an agent's stdout and stderr become records, and inputs become its stdin. One file per dialect.

A driver is pure: bytes and its own small state in, records and the next state out; the spool keeps the state in the
same transaction as the records, so a driver survives its wrapper. Others (ACP, native stream-json) fit beside these.
"""

from __future__ import annotations

from wrapper.drivers.base import Driver


def driver(name: str) -> Driver:
    """`plain` or `jsonl`."""
    from wrapper.drivers.jsonl import JsonlDriver
    from wrapper.drivers.plain import PlainDriver

    known: dict[str, type[PlainDriver] | type[JsonlDriver]] = {"plain": PlainDriver, "jsonl": JsonlDriver}
    return known[name]()
