import type { Tracer } from '../common/trace.js';
import { FrameType } from './frame-header.js';
import type { Frame, FrameConnection, FrameHandler } from './frames.js';

/**
 * Tracing of data frames. A request carries the trace in the header's status, which means something in replies alone; a
 * receiver that knows nothing of it ignores it.
 */

/** Frames that keep connections, not requests. */
const UNTRACED: ReadonlySet<number> = new Set([FrameType.HELLO, FrameType.PING]);

/** Spans around the calls of a connection that a client has dialled. */
export function traceCalls<Link extends Pick<FrameConnection, 'call'>>(link: Link, tracer: Tracer): Link {
  const call = link.call.bind(link);
  link.call = (fields, ...rest) => {
    if (UNTRACED.has(fields.type)) return call(fields, ...rest);
    return tracer.request('wire', `data ${FrameType[fields.type]}`, () =>
      call({ ...fields, status: tracer.current }, ...rest),
    );
  };
  return link;
}

/** Spans around the requests that a primary sends to a replica. */
export function traceReplication(link: Pick<FrameConnection, 'request'>, tracer: Tracer): void {
  const request = link.request.bind(link);
  link.request = (fields, payload, deadlineMs, payloadCrc, sink) => {
    if (UNTRACED.has(fields.type)) {
      request(fields, payload, deadlineMs, payloadCrc, sink);
      return;
    }
    const end = tracer.begin('replication', `send ${FrameType[fields.type]}`);
    request({ ...fields, status: tracer.current }, payload, deadlineMs, payloadCrc, (error, reply) => {
      end(error);
      sink(error, reply);
    });
  };
}

/** Spans around the requests that a server answers, in the name of whom they came from. */
export function tracedHandler(handler: FrameHandler, tracer: Tracer): FrameHandler {
  return (frame: Frame, connection) => {
    const { type, status } = frame.header;
    if (UNTRACED.has(type)) return handler(frame, connection);
    const stage = connection.peer?.role === 'client' ? 'chunkserver' : 'replica';
    const serve = () => handler(frame, connection);
    return tracer.run(status || tracer.newTrace(), () => tracer.span(stage, FrameType[type] ?? '?', serve));
  };
}
