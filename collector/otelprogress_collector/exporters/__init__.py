"""OTLP out: every request received, untouched, to each backend."""
