"""What is remembered, and the only room with SQL.

contract.py says what a store promises; sqlite.py keeps it in one file; worker.py gives it its one writer thread.
"""
