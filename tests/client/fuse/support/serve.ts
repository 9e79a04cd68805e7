import type { Caller, FileSystem, Mount } from '../../../../client/fuse/binding.js';
import { type BindingChoice, mountFileSystem } from '../../../../client/fuse/choose.js';
import { systemClock } from '../../../../common/clock.js';
import { createLogger, type LogLevel } from '../../../../common/logger.js';
import { HoldfastError } from '../../../../proto/errors.js';
import { ROOT_INO } from '../../../../proto/types.js';
import { MemoryFs } from './memory-fs.js';

/**
 * A process that mounts a MemoryFs: `serve.ts OPTIONS-AS-JSON`. With an IPC channel it obeys commands and answers
 * each with `{ id, result }` or `{ id, error }`.
 */

export interface ServeOptions {
  mountPoint: string;
  binding: BindingChoice;
  ttlMs?: number;
  keepCache?: boolean;
  log?: LogLevel;
  readOnly?: boolean;
  rootMode?: number;
  /** Each answer with the root's attributes is overtaken by an invalidation: the kernel drops it. */
  rootIsInvalidated?: boolean;
}

/** A request that the file system got: the method and its plain arguments. */
export interface TraceEntry {
  method: string;
  uid?: number;
  gid?: number;
  /** Arguments behind the caller; buffers become their length in bytes, as `<n>`. */
  args: (string | number)[];
}

export type ServeCommand =
  | { command: 'trace' }
  /** Answered when the method was called, now or since the last trace. */
  | { command: 'await-call'; method: string }
  /** Answered when so many inodes are left. */
  | { command: 'await-inodes'; count: number }
  | { command: 'hang'; method: string; ignoreInterrupt: boolean }
  | { command: 'overwrite'; ino: number; text: string }
  | { command: 'invalidate'; ino: number }
  | { command: 'invalidate-entry'; parent: number; name: string }
  | { command: 'info' }
  | { command: 'unmount'; graceMs: number };

const TRACE_MAX_ENTRIES = 100_000;

/** Records what is asked, and keeps chosen methods waiting. */
class Observer {
  trace: TraceEntry[] = [];
  private readonly hanging = new Map<string, boolean>();
  private readonly watchers = new Set<() => void>();

  /** Resolves when `condition` holds; it is tried after each request. */
  until(condition: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const attempt = (): void => {
        if (!condition()) return;
        this.watchers.delete(attempt);
        resolve();
      };
      this.watchers.add(attempt);
      attempt();
    });
  }

  hang(method: string, ignoreInterrupt: boolean): void {
    this.hanging.set(method, ignoreInterrupt);
  }

  watch(fs: MemoryFs): FileSystem {
    return new Proxy<FileSystem>(fs, {
      get: (target, key, receiver) => {
        const member: unknown = Reflect.get(target, key, receiver);
        if (typeof member !== 'function' || typeof key !== 'string') return member;
        return (...args: unknown[]) => {
          const caller = isCaller(args[0]) ? args[0] : undefined;
          this.record(key, caller, caller ? args.slice(1) : args);
          const ignoreInterrupt = this.hanging.get(key);
          if (ignoreInterrupt !== undefined && caller) {
            for (const attempt of this.watchers) attempt();
            return hangUntilInterrupted(caller, ignoreInterrupt);
          }
          const result: unknown = Reflect.apply(member, target, args);
          for (const attempt of this.watchers) attempt();
          return result;
        };
      },
    });
  }

  private record(method: string, caller: Caller | undefined, args: unknown[]): void {
    if (this.trace.length >= TRACE_MAX_ENTRIES) this.trace.length = 0;
    const entry: TraceEntry = { method, args: args.map(plain) };
    if (caller) Object.assign(entry, { uid: caller.uid, gid: caller.gid });
    this.trace.push(entry);
  }
}

function isCaller(value: unknown): value is Caller {
  return typeof value === 'object' && value !== null && 'pid' in value && 'signal' in value;
}

function plain(value: unknown): string | number {
  if (typeof value === 'number' || typeof value === 'string') return value;
  if (Buffer.isBuffer(value)) return `<${value.length}>`;
  return JSON.stringify(value, (_key, inner: unknown) => {
    if (typeof inner === 'bigint') return `${inner}`;
    // A Buffer's toJSON has run by now.
    const isBuffer =
      typeof inner === 'object' && inner !== null && 'type' in inner && inner.type === 'Buffer';
    return isBuffer && 'data' in inner && Array.isArray(inner.data) ? `<${inner.data.length}>` : inner;
  });
}

function hangUntilInterrupted(caller: Caller, ignoreInterrupt: boolean): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (ignoreInterrupt) return;
    const interrupt = (): void => reject(new HoldfastError('EINTR'));
    if (caller.signal.aborted) interrupt();
    else caller.signal.addEventListener('abort', interrupt, { once: true });
  });
}

async function obey(command: ServeCommand, fs: MemoryFs, observer: Observer, mount: Mount): Promise<unknown> {
  switch (command.command) {
    case 'trace': {
      const { trace } = observer;
      observer.trace = [];
      return trace;
    }
    case 'await-call':
      return observer.until(() => observer.trace.some(({ method }) => method === command.method));
    case 'await-inodes':
      return observer.until(() => fs.inodeCount === command.count);
    case 'hang':
      return observer.hang(command.method, command.ignoreInterrupt);
    case 'overwrite':
      return fs.overwrite(command.ino, Buffer.from(command.text));
    case 'invalidate':
      return mount.info.notify?.invalidateInode(command.ino, 0, 0);
    case 'invalidate-entry':
      return mount.info.notify?.invalidateEntry(command.parent, Buffer.from(command.name));
    case 'info':
      return { ...mount.info, notify: mount.info.notify !== undefined };
    case 'unmount':
      return mount.unmount(command.graceMs);
  }
}

async function main(options: ServeOptions): Promise<void> {
  let mount: Mount | undefined;
  const fs = new MemoryFs({
    clock: systemClock,
    ttlMs: options.ttlMs ?? 1000,
    keepCache: options.keepCache ?? false,
  });
  const observer = new Observer();
  if (options.rootIsInvalidated) {
    const getattr = fs.getattr.bind(fs);
    fs.getattr = async (caller, ino) => {
      if (ino === ROOT_INO) await mount?.info.notify?.invalidateInode(ino, -1, 0);
      return getattr(caller, ino);
    };
  }
  const log = createLogger({}, options.log ?? 'warn');
  try {
    const { mountPoint, binding, readOnly, rootMode } = options;
    mount = await mountFileSystem(
      observer.watch(fs),
      { mountPoint, binding, readOnly, rootMode, fsName: 'memory', allowOther: true },
      log,
      systemClock,
    );
  } catch (error) {
    const failed = error instanceof Error ? error.message : String(error);
    if (process.send) process.send({ failed });
    else console.error(failed);
    process.exitCode = 1;
    process.disconnect?.();
    return;
  }
  const answers = new Set<Promise<void>>();
  const mounted = mount;
  process.on('message', (message: { id: number } & ServeCommand) => {
    const answer = obey(message, fs, observer, mounted).then(
      (result) => void process.send?.({ id: message.id, result }),
      (error: unknown) => void process.send?.({ id: message.id, error: String(error) }),
    );
    answers.add(answer);
    void answer.then(() => answers.delete(answer));
  });
  process.send?.({ ready: true });
  await mount.ended;
  await Promise.all(answers);
  process.disconnect?.();
}

await main(JSON.parse(process.argv[2] ?? '{}') as ServeOptions);
