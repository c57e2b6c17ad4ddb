"""The language of Holdfast: frames, resources, ids, codes, errors, defaults.

Both sides read these tables; nothing here imports anything of ours, and nothing here does I/O.
Import the module that you need: the package itself stays empty so that the wrapper starts fast.
"""
