"""Decisions about nodes and their tasks, as pure functions over plain values.

A node's rows answer to `node/<id>`, a task's to `task/<id>`; the one door is `decide.decide(view, request)`.
Ownership follows the same rules as a session's (law/owner.py); nothing here knows sockets, clocks or SQL.
"""
