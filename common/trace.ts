import { AsyncLocalStorage } from 'node:async_hooks';
import type { Prng } from './prng.js';

/**
 * Tracing of requests through the processes of a cluster. Parts are traced by wrapping them where they are put together,
 * and only when a tracer is handed in: without one there is no code of it on any path.
 */

/** Where time is spent, from the outside to the inside: of two spans at one moment the later stage is what is waited for. */
export const STAGES = [
  'fuse',
  'wire',
  'metaserver',
  'chunkserver',
  'raft commit',
  'raft apply',
  'replication',
  'replica',
  'store',
  'sync',
] as const;
export type Stage = (typeof STAGES)[number];

/** One piece of work, as a trace file has it: a line of JSON. */
export interface Span {
  /** Of the request that it is a part of: a number of 32 bits, the same in all processes. */
  trace: number;
  stage: Stage;
  name: string;
  /** Microseconds of CLOCK_MONOTONIC: comparable between the processes of one machine. */
  at: number;
  /** Duration, microseconds. */
  us: number;
  /** What it failed with; absent: nothing. */
  error?: string;
  /** Requests that shared it; absent: one. */
  count?: number;
}

/** Takes finished spans; never throws. */
export interface SpanSink {
  add(span: Span): void;
}

/** Ends a span. */
export type EndSpan = (error?: unknown) => void;

const TRACE_ID_BELOW = 0x1_0000_0000;

/** Microseconds of the machine's monotonic clock, the same in all of its processes. */
export function monotonicUs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e6 + nanoseconds / 1e3;
}

/** Knows which request the running code works for, and notes how long things take. */
export class Tracer {
  readonly #sink: SpanSink;
  readonly #prng: Prng;
  readonly #nowUs: () => number;
  readonly #current = new AsyncLocalStorage<number>();

  constructor(sink: SpanSink, prng: Prng, nowUs: () => number = monotonicUs) {
    this.#sink = sink;
    this.#prng = prng;
    this.#nowUs = nowUs;
  }

  /** Trace of the request that is worked for; 0: none. */
  get current(): number {
    return this.#current.getStore() ?? 0;
  }

  /** Microseconds, as spans have them. */
  now(): number {
    return this.#nowUs();
  }

  /** A number for a request that begins here. */
  newTrace(): number {
    return 1 + this.#prng.int(TRACE_ID_BELOW - 1);
  }

  /** Runs `fn`, and all that follows from it, as work for a request. */
  run<T>(trace: number, fn: () => T): T {
    return this.#current.run(trace, fn);
  }

  /** Begins a span; it is noted when it ends, once. */
  begin(stage: Stage, name: string, trace = this.current): EndSpan {
    const at = this.#nowUs();
    let open = true;
    return (error) => {
      if (!open) return;
      open = false;
      this.add({
        trace,
        stage,
        name,
        at,
        us: this.#nowUs() - at,
        ...(error ? { error: nameOf(error) } : {}),
      });
    };
  }

  add(span: Span): void {
    this.#sink.add(span);
  }

  /** A span around a call, until its promise settles. What it throws is passed on. */
  span<T>(stage: Stage, name: string, call: () => Promise<T>): Promise<T> {
    const end = this.begin(stage, name);
    const result = call();
    result.then(() => end(), end);
    return result;
  }

  /** As span(), for work that belongs to no request so far: then it is one of its own. */
  request<T>(stage: Stage, name: string, call: () => Promise<T>): Promise<T> {
    if (this.current !== 0) return this.span(stage, name, call);
    return this.run(this.newTrace(), () => this.span(stage, name, call));
  }

  /** A callback that ends a span when it is called with an error or without. */
  callback<Done extends (error: Error | undefined) => void>(stage: Stage, name: string, done: Done): Done {
    const end = this.begin(stage, name);
    return ((error: Error | undefined) => {
      end(error);
      done(error);
    }) as Done;
  }
}

function nameOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return 'errorName' in error ? String(error.errorName) : error.name;
}

/**
 * The same object, with a span around each call of a method that `stageOf` gives a stage. Such calls return promises, as
 * what is traced must allow.
 * Methods run on the object itself: what it calls of its own is not traced.
 * @param begins a call that belongs to no request begins one
 */
export function traced<T extends object>(
  target: T,
  tracer: Tracer,
  prefix: string,
  stageOf: (method: string) => Stage | undefined,
  begins = false,
): T {
  const methods = new Map<string | symbol, unknown>();
  return new Proxy(target, {
    get(_target, property) {
      const value: unknown = Reflect.get(target, property, target);
      if (typeof value !== 'function') return value;
      let method = methods.get(property);
      if (!method) {
        method = wrapped(target, property, value as Method, { tracer, prefix, stageOf, begins });
        methods.set(property, method);
      }
      return method;
    },
  });
}

type Method = (...args: unknown[]) => unknown;

interface Wrapping {
  tracer: Tracer;
  prefix: string;
  stageOf: (method: string) => Stage | undefined;
  begins: boolean;
}

function wrapped(target: object, property: string | symbol, method: Method, how: Wrapping): Method {
  const { tracer, prefix, stageOf, begins } = how;
  const stage = typeof property === 'string' ? stageOf(property) : undefined;
  if (!stage) return (...args) => Reflect.apply(method, target, args);
  const name = `${prefix}${String(property)}`;
  return (...args) => {
    const call = async (): Promise<unknown> => Reflect.apply(method, target, args);
    return begins ? tracer.request(stage, name, call) : tracer.span(stage, name, call);
  };
}
