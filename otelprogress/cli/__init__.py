"""The command line. `entry` is the entry point."""
