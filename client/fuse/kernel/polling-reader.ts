import { getSystemErrorName } from 'node:util';
import type { FuseDevice } from './device.js';

/**
 * Reads /dev/fuse from the event loop. A read by the thread pool wakes two threads for each request, one after the
 * other; the event loop's poll wakes one, and that is most of what a small request costs.
 *
 * Node polls sockets and pipes only, but its pipe handle takes any descriptor that can be polled. It is reached through
 * `process.binding`, which is deprecated without a date: where it is gone or has changed, the pool reads.
 */

/** The part of Node's pipe handle that is used here. */
interface PipeHandle {
  /** @returns a negative errno on failure */
  open(fd: number): number;
  /** Where the next request goes. */
  useUserBuffer(buffer: Buffer): void;
  readStart(): number;
  readStop(): number;
  close(): void;
  /** Called behind each read; the length, or a negative errno, is in streamBaseState. @returns the next buffer */
  onread: () => Buffer | undefined;
}

interface Bindings {
  Pipe: new (type: number) => PipeHandle;
  SOCKET: number;
  /** The outcome of the last read of any handle is at `bytesAt`. */
  state: Int32Array;
  bytesAt: number;
}

type Done = (error: NodeJS.ErrnoException | null, bytes: number) => void;

function loadBindings(): Bindings | undefined {
  try {
    const load = (process as unknown as { binding?: (name: string) => Record<string, unknown> }).binding;
    if (!load) return undefined;
    const pipe = load('pipe_wrap');
    const stream = load('stream_wrap');
    const constants = pipe.constants as { SOCKET: number } | undefined;
    const { streamBaseState: state, kReadBytesOrError: bytesAt } = stream;
    if (typeof pipe.Pipe !== 'function' || !(state instanceof Int32Array) || typeof bytesAt !== 'number')
      return undefined;
    return { Pipe: pipe.Pipe as Bindings['Pipe'], SOCKET: constants?.SOCKET ?? 0, state, bytesAt };
  } catch {
    return undefined; // no such binding in this Node
  }
}

/**
 * A reader that needs no thread of the pool. It owns the descriptor, which becomes non-blocking, until close().
 * @returns undefined where Node has no way to poll it
 */
export function pollingReader(
  fd: number,
): Pick<FuseDevice, 'readsMax' | 'threadsPerRead' | 'read' | 'close'> | undefined {
  const bindings = loadBindings();
  if (!bindings) return undefined;
  const { state, bytesAt } = bindings;
  const handle = new bindings.Pipe(bindings.SOCKET);
  if (typeof handle.useUserBuffer !== 'function' || handle.open(fd) !== 0) return undefined;
  let waiting: { target: Buffer; done: Done } | undefined;
  /** Where the handle puts the next request; undefined before the first read. */
  let buffer: Buffer | undefined;
  let reading = false;

  handle.onread = () => {
    const bytes = state[bytesAt] as number;
    const taken = waiting;
    // Woken for nothing: somebody else has taken the request, or it is gone.
    if (bytes === 0 || !taken) return undefined;
    waiting = undefined;
    if (bytes < 0) {
      reading = false; // libuv has stopped
      taken.done(errorOf(bytes), 0);
      return undefined;
    }
    if (buffer && taken.target !== buffer) buffer.copy(taken.target, 0, 0, bytes);
    taken.done(null, bytes);
    if (!waiting) {
      handle.readStop();
      reading = false;
      return undefined;
    }
    const next = (waiting as { target: Buffer }).target;
    if (next === buffer) return undefined;
    buffer = next;
    return next;
  };

  return {
    readsMax: 1,
    threadsPerRead: 0,
    read(target, done) {
      waiting = { target, done };
      if (!buffer) {
        buffer = target;
        handle.useUserBuffer(target);
      }
      if (reading) return;
      reading = true;
      const failed = handle.readStart();
      if (failed === 0) return;
      reading = false;
      waiting = undefined;
      setImmediate(() => done(errorOf(failed), 0));
    },
    close: () => handle.close(),
  };
}

function errorOf(negative: number): NodeJS.ErrnoException {
  const code = getSystemErrorName(negative);
  return Object.assign(new Error(`reading from /dev/fuse: ${code}`), { code, errno: negative });
}
