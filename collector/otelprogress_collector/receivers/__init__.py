"""OTLP in: bytes to records to events, over HTTP and gRPC."""
