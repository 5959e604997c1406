"""What an operation is and how it moves: pure data and pure functions.

Nothing here does I/O, reads a clock or knows a framework; the time is always an argument (`now_unix_ns`).
Import the modules, not this package.
"""
