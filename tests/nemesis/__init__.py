"""Faults by plan against a real service, every client's history, and the judge over all of them (README.md here)."""
