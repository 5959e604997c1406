// Progress by the conventions (docs/semconv/README.md) from a plain OpenTelemetry program.
//
// Arguments: the folder with sdk.cjs, the encoding, `writer` (with a writer id, sequence and lease) or `anonymous`.
// It prints the root's trace id and span id once the first step is under way, and goes on after a line on stdin.
const [folder, encoding, identity] = process.argv.slice(2);
const { context, trace, logs, stop } = require(`${folder}/sdk.cjs`).start(
  { 'service.name': 'billing', 'process.pid': process.pid },
  encoding,
);
const tracer = trace.getTracer('my.billing');
const logger = logs.getLogger('my.billing', '1.0');
const P = 'otelprogress.';
const sequences = new Map();

function emit(event, said = {}, severityNumber = 9) {
  const attributes = Object.fromEntries(Object.entries(said).map(([name, value]) => [P + name, value]));
  if (identity === 'writer' && event !== 'operation.progressed') {
    const { spanId } = trace.getActiveSpan().spanContext();
    sequences.set(spanId, (sequences.get(spanId) ?? 0) + 1);
    attributes[`${P}writer.id`] = `node-${process.pid}`;
    attributes[`${P}writer.sequence`] = sequences.get(spanId);
    if (event === 'operation.started') attributes[`${P}writer.lease`] = 60;
  }
  logger.emit({ eventName: P + event, severityNumber, attributes });
}

async function operation(name, said, body) {
  const parent = trace.getActiveSpan();
  await tracer.startActiveSpan(name, async (span) => {
    const above = parent === undefined ? '' : parent.spanContext().spanId;
    emit('operation.started', { 'operation.name': name, 'operation.parent_span_id': above, ...said });
    try {
      emit('operation.ended', { 'operation.state': 'succeeded', ...(await body(span)) });
    } catch (error) {
      span.recordException(error);
      span.setStatus({ code: 2, message: error.message });
      logger.emit({
        eventName: `${P}operation.ended`,
        severityNumber: 17,
        attributes: {
          [`${P}operation.state`]: 'failed',
          'error.type': error.name,
          'exception.message': error.message,
        },
      });
    }
    span.end();
  });
}

async function main() {
  const steps = ['fetch', 'send'];
  await operation('invoices', { 'operation.steps': steps, 'operation.title': 'Invoices of May' }, async (span) => {
    emit('step.started', { 'step.name': 'fetch', 'step.index': 0 });
    const counts = { 'items.completed': 40, 'items.total': 120, 'items.unit': '{invoice}' };
    emit('operation.progressed', { 'step.name': 'fetch', 'step.index': 0, ...counts });
    const { traceId, spanId } = span.spanContext();
    process.stdout.write(`${traceId} ${spanId}\n`);
    await new Promise((resolve) => process.stdin.once('data', resolve));
    emit('step.ended', {
      'step.name': 'fetch',
      'step.index': 0,
      'step.state': 'succeeded',
      'items.completed': 120,
      'items.total': 120,
      'items.unit': '{invoice}',
      'counter.rejected': 2.5,
    });
    emit('operation.noted', { message: '3 addresses are incomplete' }, 13);
    emit('step.started', { 'step.name': 'send', 'step.index': 1 });
    logger.emit({ severityNumber: 9, body: 'mail server says hello' });
    await operation('send batch', {}, async () => ({ 'items.completed': 7 }));
    await operation('send batch', {}, async () => {
      throw new RangeError('no stamp left');
    });
    emit('step.ended', { 'step.name': 'send', 'step.index': 1, 'step.state': 'succeeded' });
    return {};
  });
  await stop();
  process.stdin.destroy();
}

main();
