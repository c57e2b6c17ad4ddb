"""All decisions, as pure functions over plain values: no I/O, no clock, no logging, no Ray.

The one way in is `decide.decide(view, request)`; the one way to use it is a transition (store/contract.py).
What a decision wants done comes back as frozen effects; performing them is somebody else's business.
"""
