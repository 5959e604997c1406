// The SDK set up as its documentation says, versions 3.x. `encoding`: http, proto or grpc.
const { context, logs, trace } = require('@opentelemetry/api');
const { AsyncLocalStorageContextManager } = require('@opentelemetry/context-async-hooks');
const { BatchLogRecordProcessor, LoggerProvider } = require('@opentelemetry/sdk-logs');
const { BatchSpanProcessor, TracerProvider } = require('@opentelemetry/sdk-trace');
const { resourceFromAttributes } = require('@opentelemetry/resources');

exports.start = (attributes, encoding) => {
  const { OTLPLogExporter } = require(`@opentelemetry/exporter-logs-otlp-${encoding}`);
  const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${encoding}`);
  const resource = resourceFromAttributes(attributes);
  const loggers = new LoggerProvider({
    resource,
    processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter(), scheduledDelayMillis: 100 })],
  });
  const tracers = new TracerProvider({
    resource,
    spanProcessors: [new BatchSpanProcessor({ exporter: new OTLPTraceExporter() })],
  });
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  logs.setGlobalLoggerProvider(loggers);
  trace.setGlobalTracerProvider(tracers);
  return { context, trace, logs, stop: () => Promise.all([loggers.shutdown(), tracers.shutdown()]) };
};
