"""The feed protocol, both sides, sans I/O: bytes and times in, frames and events out.

Nothing here opens a socket, starts a thread or reads a clock. Import the modules, not this package.
"""
