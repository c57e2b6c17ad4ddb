"""Decisions about work orders, their batches, stations and collectors, as pure functions over plain values.

An order's rows, its batches' and its tasks' answer to `order/<id>`; the one door is `decide.decide(view, request)`.
Downward only by notices (outbox rows, law/nodes/notices.py): an order never calls a node, and never waits for one.
"""
