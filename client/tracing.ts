import { type Tracer, traced } from '../common/trace.js';
import { traceCalls } from '../proto/trace.js';
import type { FrameDialer } from './data/chunk-connections.js';
import type { FileSystem } from './fuse/binding.js';
import type { ClientBody, Envelop, MetaDialer } from './meta/dialer.js';

/** Calls of the binding that no program waits for as a request. */
const NO_REQUESTS: ReadonlySet<string> = new Set(['init', 'destroy', 'forget']);

/** Each request of the kernel begins a trace. */
export function tracedFileSystem(fs: FileSystem, tracer: Tracer): FileSystem {
  const stage = (method: string) => (NO_REQUESTS.has(method) ? undefined : 'fuse');
  return traced(fs, tracer, '', stage, true);
}

/** Messages that say for which request they are. */
export function tracedEnvelope(tracer: Tracer): Envelop {
  return (id, deadlineMs, body) => ({ id, deadlineMs, body, trace: tracer.current || undefined });
}

/** Spans around the calls to the metaserver. */
export function tracedMetaDialer(dial: MetaDialer, tracer: Tracer): MetaDialer {
  return (address, events) => {
    const connection = dial(address, events);
    return {
      call: (body, deadlineMs) =>
        tracer.request('wire', `meta ${bodyName(body)}`, () => connection.call(body, deadlineMs)),
      push: (body) => connection.push(body),
      close: (reason) => connection.close(reason),
    };
  };
}

/** Spans around the calls to chunkservers. */
export function tracedFrameDialer(dial: FrameDialer, tracer: Tracer): FrameDialer {
  return async (host, port) => traceCalls(await dial(host, port), tracer);
}

/** "read lookup", "mutation rename", "batch": what is asked for, without whom or what. */
function bodyName(body: ClientBody): string {
  const { $case } = body;
  if ($case !== 'read' && $case !== 'mutation') return $case;
  return `${$case} ${body.value.op?.$case ?? '?'}`;
}
