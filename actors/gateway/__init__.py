"""The only network door: sockets, authentication, fan-out; aiohttp lives here, and no truth does.

Data frames go straight to the store's writer in their socket's order; every control decision goes through the mailbox.
There is no Ray and no SQL in this room: what it needs of them are constructor arguments (service.Gateway).
"""
