"""The documents that the door gives of itself: OpenAPI, AsyncAPI, and one page of both for people.

All of it is made from tables and models (routes.py, protocol/), once, at start; nothing in here is written twice.
Pure: no I/O, and no request is looked at.
"""
