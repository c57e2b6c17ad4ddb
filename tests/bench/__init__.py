"""Benchmarks: `python -m tests.bench [--quick]`. Every target is a ratio against a bare yardstick in the same run.

The service is a real `holdfast up` with full validation, fencing, deduplication and durable acknowledgements: there is
no bench mode. Clients are processes of their own. Everything goes to loopback and is bounded in count and time.
"""
