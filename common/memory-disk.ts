import path from 'node:path';
import type { Disk, DiskFile, DiskSpace, OpenMode } from './disk.js';
import type { Prng } from './prng.js';

const SECTOR_BYTES = 512;
const CRASHED = 'the machine has crashed';
const DEFAULT_CAPACITY_BYTES = 1024 * 1024 * 1024;

/** What a power cut leaves of data that was never synced. */
export type Survival = 'nothing' | 'everything' | 'random';
export type FaultyCall = 'open' | 'write' | 'read' | 'datasync' | 'truncate' | 'unlink' | 'syncDir';

/** A change that datasync has not yet made durable. */
type Change = { at: number; bytes: Buffer } | { truncate: number };

class MemoryNode {
  current: Buffer = Buffer.alloc(0);
  durable: Buffer = Buffer.alloc(0);
  changes: Change[] = [];
}

interface Fault {
  call: FaultyCall;
  code: string;
  after: number;
  times: number;
}

/**
 * A disk in memory for tests and simulation: it knows what was synced, and a crash takes the rest, whole, in sectors or
 * not at all. Faults are switched on by call. Everything it does is in microtasks, so that a seed gives one exact run.
 */
export class MemoryDisk implements Disk {
  /** Appended bytes beyond it fail with ENOSPC. */
  capacityBytes = DEFAULT_CAPACITY_BYTES;
  /** Calls so far, by name. */
  readonly calls = new Map<FaultyCall, number>();
  private names = new Map<string, MemoryNode>();
  private durableNames = new Map<string, MemoryNode>();
  private readonly dirs = new Set<string>();
  private readonly faults: Fault[] = [];
  private life = 0;

  /** Lets `times` calls fail with the given error code, after `after` more that succeed. */
  fail(call: FaultyCall, code: string, after = 0, times = 1): void {
    this.faults.push({ call, code, after, times });
  }

  /** Cuts the power: unsynced data and names survive as told, and files opened before are dead. */
  crash(survival: Survival, prng: Prng): void {
    this.life++;
    const keep = (): boolean => survival === 'everything' || (survival === 'random' && prng.float() < 0.5);
    const names = new Map(this.durableNames);
    for (const name of new Set([...this.names.keys(), ...this.durableNames.keys()])) {
      const node = this.names.get(name);
      if (node === this.durableNames.get(name) || !keep()) continue;
      if (node) names.set(name, node);
      else names.delete(name);
    }
    this.names = names;
    this.durableNames = new Map(names);
    for (const node of new Set(names.values())) {
      for (const change of node.changes) node.durable = surviving(node.durable, change, survival, prng);
      node.changes = [];
      node.current = Buffer.from(node.durable);
    }
  }

  /** The disk as one life of a machine sees it: after the next crash all of its calls fail. */
  mounted(): Disk {
    const life = this.life;
    const alive = <A extends unknown[], R>(call: (...args: A) => Promise<R>) => {
      return async (...args: A): Promise<R> => {
        if (life !== this.life) throw diskError('EIO', CRASHED);
        return call.apply(this, args);
      };
    };
    return {
      open: alive(this.open),
      mkdir: alive(this.mkdir),
      list: alive(this.list),
      unlink: alive(this.unlink),
      rename: alive(this.rename),
      syncDir: alive(this.syncDir),
      space: alive(this.space),
    };
  }

  /** Inverts one bit where it lies, durably: damage that no call reports. */
  flipBit(file: string, offset: number, bit = 0): void {
    const node = this.node(file);
    node.current[offset] = (node.current[offset] as number) ^ (1 << bit);
    if (offset < node.durable.length) node.durable[offset] = (node.durable[offset] as number) ^ (1 << bit);
    for (const change of node.changes) {
      if ('at' in change && offset >= change.at && offset < change.at + change.bytes.length) {
        change.bytes[offset - change.at] = (change.bytes[offset - change.at] as number) ^ (1 << bit);
      }
    }
  }

  /** The file's bytes as a reader sees them now. */
  content(file: string): Buffer {
    return Buffer.from(this.node(file).current);
  }

  /** Names that begin so, in order. */
  files(prefix: string): string[] {
    return [...this.names.keys()].filter((name) => name.startsWith(prefix)).sort();
  }

  async open(file: string, mode: OpenMode): Promise<DiskFile> {
    const life = this.life;
    await this.call('open');
    if (life !== this.life) throw diskError('EIO', CRASHED);
    const exists = this.names.has(file);
    if (mode === 'create' && exists) throw diskError('EEXIST', file);
    if (mode !== 'create' && !exists) throw diskError('ENOENT', file);
    if (mode === 'create') this.names.set(file, new MemoryNode());
    return this.handle(this.node(file));
  }

  private handle(node: MemoryNode): DiskFile {
    const life = this.life;
    const alive = async (call: FaultyCall): Promise<void> => {
      await this.call(call);
      if (life !== this.life) throw diskError('EIO', CRASHED);
    };
    return {
      write: async (parts, position) => {
        const bytes = Buffer.concat(parts);
        await alive('write');
        const growth = Math.max(0, position + bytes.length - node.current.length);
        if (growth > this.free()) throw diskError('ENOSPC', 'write');
        const change = { at: position, bytes };
        node.changes.push(change);
        node.current = applied(node.current, change);
      },
      read: async (target, position) => {
        await alive('read');
        return position >= node.current.length ? 0 : node.current.copy(target, 0, position);
      },
      datasync: async () => {
        await alive('datasync').catch((error: unknown) => {
          // As Linux does it: what could not be written counts as clean, is still shown, and is never written again.
          if (life === this.life) node.changes = [];
          throw error;
        });
        for (const change of node.changes) node.durable = applied(node.durable, change);
        node.changes = [];
      },
      size: async () => node.current.length,
      truncate: async (length) => {
        await alive('truncate');
        node.changes.push({ truncate: length });
        node.current = applied(node.current, { truncate: length });
      },
      close: async () => undefined,
    };
  }

  async mkdir(dir: string): Promise<void> {
    this.dirs.add(dir);
  }

  async list(dir: string): Promise<string[]> {
    const prefix = `${dir}/`;
    const below = [...this.names.keys(), ...this.dirs].filter((name) => name.startsWith(prefix));
    return [...new Set(below.map((name) => name.slice(prefix.length).split('/')[0] as string))];
  }

  async unlink(file: string): Promise<void> {
    const life = this.life;
    await this.call('unlink');
    if (life !== this.life) throw diskError('EIO', CRASHED);
    if (!this.names.delete(file)) throw diskError('ENOENT', file);
  }

  async rename(from: string, to: string): Promise<void> {
    const node = this.node(from);
    this.names.delete(from);
    this.names.set(to, node);
  }

  async syncDir(dir: string): Promise<void> {
    const life = this.life;
    await this.call('syncDir');
    if (life !== this.life) throw diskError('EIO', CRASHED);
    const inDir = (name: string): boolean => path.dirname(name) === dir;
    for (const name of this.durableNames.keys()) if (inDir(name)) this.durableNames.delete(name);
    for (const [name, node] of this.names) if (inDir(name)) this.durableNames.set(name, node);
  }

  async space(): Promise<DiskSpace> {
    return { totalBytes: this.capacityBytes, freeBytes: Math.max(0, this.free()) };
  }

  private free(): number {
    let used = 0;
    for (const node of this.names.values()) used += node.current.length;
    return this.capacityBytes - used;
  }

  private node(file: string): MemoryNode {
    const node = this.names.get(file);
    if (!node) throw diskError('ENOENT', file);
    return node;
  }

  private async call(call: FaultyCall): Promise<void> {
    this.calls.set(call, (this.calls.get(call) ?? 0) + 1);
    await Promise.resolve();
    const fault = this.faults.find((each) => each.call === call && each.times > 0);
    if (!fault) return;
    if (fault.after > 0) fault.after--;
    else {
      fault.times--;
      throw diskError(fault.code, call);
    }
  }
}

function diskError(code: string, what: string): Error {
  return Object.assign(new Error(`${code}: ${what}`), { code });
}

function applied(content: Buffer, change: Change): Buffer {
  const end = 'truncate' in change ? change.truncate : change.at + change.bytes.length;
  let next: Buffer = content;
  if ('truncate' in change ? end !== content.length : end > content.length) next = resized(content, end);
  if ('at' in change) change.bytes.copy(next, change.at);
  return next;
}

/** Grows with room to spare in the allocation, so that appends do not copy the file each time. */
function resized(content: Buffer, length: number): Buffer {
  const room = content.buffer.byteLength - content.byteOffset;
  if (length <= room && content.buffer.byteLength > Buffer.poolSize) {
    const view = Buffer.from(content.buffer, content.byteOffset, length);
    if (length > content.length) view.fill(0, content.length);
    return view;
  }
  const grown = Buffer.from(new ArrayBuffer(Math.max(length * 2, Buffer.poolSize * 2)), 0, length);
  content.copy(grown, 0, 0, Math.min(length, content.length));
  return grown;
}

/** `content` after a change of which a crash left all, nothing, or some sectors. */
function surviving(content: Buffer, change: Change, survival: Survival, prng: Prng): Buffer {
  const chance = survival === 'everything' ? 0 : survival === 'nothing' ? 1 : prng.float();
  if (chance < 0.34) return applied(content, change);
  if (chance < 0.67 && 'at' in change) {
    let torn: Buffer = content;
    for (let from = 0; from < change.bytes.length; ) {
      const to = Math.min(change.bytes.length, from + SECTOR_BYTES - ((change.at + from) % SECTOR_BYTES));
      if (prng.float() < 0.5) {
        torn = applied(torn, { at: change.at + from, bytes: change.bytes.subarray(from, to) });
      }
      from = to;
    }
    return torn;
  }
  return content;
}
