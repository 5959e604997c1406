// The SDK set up as its documentation says, versions 2.x and 0.2xx. `encoding`: http, proto or grpc.
const { context, trace } = require('@opentelemetry/api');
const { logs } = require('@opentelemetry/api-logs');
const { AsyncLocalStorageContextManager } = require('@opentelemetry/context-async-hooks');
const { BatchLogRecordProcessor, LoggerProvider } = require('@opentelemetry/sdk-logs');
const { BasicTracerProvider, BatchSpanProcessor } = require('@opentelemetry/sdk-trace-base');
const { resourceFromAttributes } = require('@opentelemetry/resources');

exports.start = (attributes, encoding) => {
  const { OTLPLogExporter } = require(`@opentelemetry/exporter-logs-otlp-${encoding}`);
  const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${encoding}`);
  const resource = resourceFromAttributes(attributes);
  const loggers = new LoggerProvider({
    resource,
    processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter(), scheduledDelayMillis: 100 })],
  });
  const tracers = new BasicTracerProvider({
    resource,
    spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
  });
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  logs.setGlobalLoggerProvider(loggers);
  trace.setGlobalTracerProvider(tracers);
  return { context, trace, logs, stop: () => Promise.all([loggers.shutdown(), tracers.shutdown()]) };
};
