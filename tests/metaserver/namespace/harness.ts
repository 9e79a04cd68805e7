import assert from 'node:assert/strict';
import {
  MetaStateMachine,
  type MetaStateMachineOptions,
} from '../../../metaserver/namespace/state-machine.js';
import type { Kv, KvReader } from '../../../metaserver/store/kv.js';
import { MemoryKv } from '../../../metaserver/store/memory-kv.js';
import { type ErrorName, errorFromCode, HoldfastError } from '../../../proto/errors.js';
import {
  type Attr,
  Command,
  type CommandResult,
  type DirPage,
  type MakeNode,
  Mutation,
  type MutationReply,
  type QuotaAmount,
  type ReadReply,
  type ReadRequest,
  type Rename,
  SetAttr,
  type Time,
} from '../../../proto/gen/meta.js';
import { ROOT_INO, S_IFDIR, S_IFLNK, S_IFREG } from '../../../proto/types.js';

export type Op = NonNullable<Mutation['op']>;
export type Body = NonNullable<Command['body']>;
export type ReadOp = NonNullable<ReadRequest['op']>;

export const NONE: Buffer = Buffer.alloc(0);
export const b = (text: string): Buffer => Buffer.from(text, 'latin1');

export const INIT: Body = {
  $case: 'initCluster',
  value: {
    clusterId: 'c1',
    replicas: 3,
    minInSync: 2,
    chunkSize: 1 << 20,
    pgCount: 8,
    chunkservers: 3,
    rootUid: 0,
    rootGid: 0,
  },
};

export function encodeCommand(body: Body | undefined, sec: number): Buffer {
  return Buffer.from(Command.encode({ time: { sec, nsec: 0 }, body }).finish());
}

/** MakeNode with everything that a test does not care about. */
export function makeNode(parent: number, name: string, mode: number, more: Partial<MakeNode> = {}): Op {
  const defaults = { uid: 0, gid: 0, rdev: 0, target: NONE, existingOk: false, open: false };
  return { $case: 'makeNode', value: { parent, name: b(name), mode, ...defaults, ...more } };
}

export function setAttr(ino: number, changes: Partial<SetAttr>): Op {
  return { $case: 'setAttr', value: { ...SetAttr.create({}), ...changes, ino } };
}

/** Bytes of the whole store: equal stores give equal bytes. */
export function dumpKv(kv: KvReader): string[] {
  const entries = kv.range(Buffer.from([0]), Buffer.from([0xff, 0xff]));
  return [...entries].map(({ key, value }) => `${key.toString('hex')} ${value.toString('hex')}`);
}

/** A state machine with one session, driven command by command; each command is one second later. */
export class Namespace {
  readonly kv: Kv;
  readonly machine: MetaStateMachine;
  readonly session: number;
  readonly root = ROOT_INO;
  /** Seconds of the last command. */
  now = 1000;
  seq = 0;
  private index = 0;

  constructor(kv: Kv = new MemoryKv(), options: MetaStateMachineOptions = {}) {
    this.kv = kv;
    this.machine = new MetaStateMachine(kv, options);
    this.command(INIT);
    this.session = this.openSession('client-1');
  }

  openSession(clientUuid: string): number {
    const result = this.command({
      $case: 'openSession',
      value: { clientUuid, hostname: 'host', mountPoint: '/mnt' },
    });
    return result.session;
  }

  command(body: Body): CommandResult {
    this.now++;
    this.index = this.machine.appliedIndex() + 1;
    const [result] = this.machine.apply([{ index: this.index, data: encodeCommand(body, this.now) }]);
    return result as CommandResult;
  }

  mutate(op: Op, spent?: QuotaAmount[]): CommandResult {
    const mutation = {
      ...Mutation.create({}),
      session: this.session,
      seq: ++this.seq,
      ackedBelow: this.seq,
      op,
      spent: spent && { amounts: spent },
    };
    return this.command({ $case: 'mutation', value: mutation });
  }

  /** Several changes as one command. */
  mutateBatch(
    changes: readonly { op: Op; time?: Time; spent?: QuotaAmount[] | undefined }[],
  ): CommandResult[] {
    const mutations = changes.map(({ op, time, spent }) => ({
      ...Mutation.create({}),
      session: this.session,
      seq: ++this.seq,
      ackedBelow: this.seq,
      op,
      time,
      spent: spent && { amounts: spent },
    }));
    for (const mutation of mutations) mutation.ackedBelow = (mutations[0] as Mutation).seq;
    return this.command({ $case: 'batch', value: { mutations } }).batch?.results ?? [];
  }

  ok(op: Op): MutationReply {
    const result = this.mutate(op);
    assert.equal(result.error, 0, `${op.$case}: ${errorOf(result)} ${result.errorText}`);
    return result.mutation as MutationReply;
  }

  /** The operation is refused so, and changes nothing but what the session remembers. */
  refused(op: Op, error: ErrorName): void {
    const state = (): string[] => dumpKv(this.kv).filter((line) => !/^(52|5a|53636f756e746572)/.test(line));
    const before = state();
    assert.equal(errorOf(this.mutate(op)), error);
    assert.deepEqual(state(), before, `${op.$case} was refused but changed something`);
  }

  attr(op: Op): Attr {
    const { result } = this.ok(op);
    assert.equal(result?.$case, 'attr');
    return (result as { value: Attr }).value;
  }

  mkdir(parent: number, name: string, more: Partial<MakeNode> & { perm?: number } = {}): number {
    return this.attr(makeNode(parent, name, S_IFDIR | (more.perm ?? 0o755), more)).ino;
  }

  create(parent: number, name: string, more: Partial<MakeNode> & { perm?: number } = {}): number {
    return this.attr(makeNode(parent, name, S_IFREG | (more.perm ?? 0o644), more)).ino;
  }

  symlink(parent: number, name: string, target: string): number {
    return this.attr(makeNode(parent, name, S_IFLNK | 0o777, { target: b(target) })).ino;
  }

  link(ino: number, parent: number, name: string): Op {
    return { $case: 'link', value: { ino, parent, name: b(name) } };
  }

  unlink(parent: number, name: string, uid = 0): Op {
    return { $case: 'unlink', value: { parent, name: b(name), uid } };
  }

  rmdir(parent: number, name: string, uid = 0): Op {
    return { $case: 'rmdir', value: { parent, name: b(name), uid } };
  }

  rename(parent: number, name: string, newParent: number, newName: string, more: Partial<Rename> = {}): Op {
    const value = { parent, name: b(name), newParent, newName: b(newName), flags: 0, uid: 0, ...more };
    return { $case: 'rename', value };
  }

  read(op: ReadOp): NonNullable<ReadReply['result']>['value'] {
    return (this.machine.read({ op }).result as NonNullable<ReadReply['result']>).value;
  }

  get(ino: number): Attr {
    return this.read({ $case: 'getAttr', value: { ino } }) as Attr;
  }

  lookup(parent: number, name: string): Attr {
    return this.read({ $case: 'lookup', value: { parent, name: b(name) } }) as Attr;
  }

  page(ino: number, cookie = 0, maxEntries = 0, plus = false): DirPage {
    return this.read({ $case: 'readDir', value: { ino, cookie, maxEntries, plus } }) as DirPage;
  }

  names(ino: number): string[] {
    return this.page(ino).entries.map((entry) => entry.name.toString('latin1'));
  }
}

export function errorOf(result: CommandResult): ErrorName | 'ok' {
  return result.error === 0 ? 'ok' : errorFromCode(result.error).errorName;
}

/** For assert.throws. */
export function throwsWith(name: ErrorName): (error: unknown) => boolean {
  return (error) => error instanceof HoldfastError && error.errorName === name;
}
