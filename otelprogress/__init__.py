"""Live progress as a first-class part of OpenTelemetry."""
