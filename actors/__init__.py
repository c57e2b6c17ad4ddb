"""Holdfast: sessions whose truth outlives everything that works on them.

The map: `protocol` is the language, `law` decides, `store` remembers, `session` and `reaper` are the actors, `gateway`
is the door, `runtime` alone knows Ray, `up` watches it all from outside, `cli` is how people ask.
Arrows point down: cli → up/run/demo → runtime → gateway → actors → store → law → protocol (checked by import-linter).
"""
