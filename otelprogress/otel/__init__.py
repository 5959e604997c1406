"""Where progress meets the OpenTelemetry SDK: the emitter, the processors, the sender. Import the modules."""
