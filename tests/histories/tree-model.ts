import { RENAME_EXCHANGE, RENAME_NOREPLACE } from '../../proto/types.js';
import type { Model } from '../sim/checkers/linearizability.js';

/**
 * A small tree of files and directories as system calls see it. Every inode has a tag, which its creator chose: on the
 * real file system it is the owner's number. A directory or file that a call gets by descriptor is named by its tag; a
 * name is always one component in one directory, so each call looks at one moment (a path would be walked in several).
 */
export type TreeInput =
  | { kind: 'create'; dir: number; name: string; tag: number; exclusive: boolean }
  | { kind: 'mkdir'; dir: number; name: string; tag: number }
  | { kind: 'unlink' | 'rmdir'; dir: number; name: string }
  | { kind: 'lookup'; dir: number; name: string }
  | { kind: 'list'; dir: number }
  | { kind: 'link'; tag: number; dir: number; name: string }
  /** `meets`: another mount made the very same move meanwhile. */
  | {
      kind: 'rename';
      dir: number;
      name: string;
      toDir: number;
      toName: string;
      flags: number;
      meets?: boolean;
      /** It is taken to have done nothing: another mount exchanged its names meanwhile. */
      idle?: boolean;
    }
  | { kind: 'chmod'; tag: number; mode: number }
  | { kind: 'setxattr'; tag: number; value: string }
  | { kind: 'stat' | 'getxattr'; tag: number };

/** The name of an errno; else OK, or what was asked for: 'TAG dir|file', 'MODE NLINK', a value, names in order. */
export type TreeOutput = string;
export const OK = 'ok';
/** An empty list; no attribute. */
export const NOTHING = '';

/** Mode of every file and directory that is made: whoever comes may use it. */
export const MADE_MODE = 0o777;

interface Node {
  readonly entries: ReadonlyMap<string, number> | undefined;
  readonly parent: number;
  readonly mode: number;
  readonly value: string;
  /** Names of a file; a directory has one until it is removed. */
  readonly names: number;
}

/** Never changed in place. */
export class TreeState {
  readonly nodes: ReadonlyMap<number, Node>;
  #key: string | undefined;

  constructor(nodes: ReadonlyMap<number, Node>) {
    this.nodes = nodes;
  }

  /** Directories that are there from the beginning, side by side. */
  static of(tags: readonly number[]): TreeState {
    return new TreeState(new Map(tags.map((tag) => [tag, directory(0)])));
  }

  get key(): string {
    this.#key ??= [...this.nodes]
      .sort(([a], [b]) => a - b)
      .map(([tag, node]) => {
        const entries = node.entries && `{${listed(node.entries, (name, of) => `${name}:${of}`)}}`;
        return `${tag}=${node.mode},${node.value},${node.names}${entries ?? ''}`;
      })
      .join(';');
    return this.#key;
  }

  /** The directory, unless it was removed or is none. */
  directory(tag: number): ReadonlyMap<string, number> | undefined {
    const node = this.nodes.get(tag);
    return node && node.names > 0 ? node.entries : undefined;
  }

  at(dir: number, name: string): number | undefined {
    return this.directory(dir)?.get(name);
  }

  isDirectory(tag: number): boolean {
    return this.nodes.get(tag)?.entries !== undefined;
  }

  /** Is `tag` the directory `dir` or above it? */
  holds(tag: number, dir: number): boolean {
    for (let at: number | undefined = dir; at; at = this.nodes.get(at)?.parent) if (at === tag) return true;
    return false;
  }

  links(tag: number): number {
    const node = this.nodes.get(tag) as Node;
    if (!node.entries || node.names === 0) return node.names;
    return 2 + [...node.entries.values()].filter((entry) => this.isDirectory(entry)).length;
  }

  /** @param changes what becomes of each node */
  with(changes: readonly [tag: number, change: Partial<Node>][]): TreeState {
    const nodes = new Map(this.nodes);
    for (const [tag, change] of changes) nodes.set(tag, { ...(nodes.get(tag) as Node), ...change });
    return new TreeState(nodes);
  }

  without(tags: readonly number[]): TreeState {
    const nodes = new Map(this.nodes);
    for (const tag of tags) nodes.delete(tag);
    return new TreeState(nodes);
  }
}

function directory(parent: number): Node {
  return { entries: new Map(), parent, mode: MADE_MODE, value: NOTHING, names: 1 };
}

function listed(
  entries: ReadonlyMap<string, number>,
  show: (name: string, tag: number) => string = (name) => name,
): string {
  return [...entries]
    .map(([name, tag]) => show(name, tag))
    .sort()
    .join(' ');
}

type Outcome = TreeOutput | { next: TreeState; output: TreeOutput };
type Named<K extends TreeInput['kind']> = Extract<TreeInput, { kind: K }>;

function bound(
  state: TreeState,
  dir: number,
  name: string,
  tag: number | undefined,
): [number, Partial<Node>] {
  const entries = new Map(state.directory(dir));
  if (tag === undefined) entries.delete(name);
  else entries.set(name, tag);
  return [dir, { entries }];
}

function make(state: TreeState, input: Named<'create' | 'mkdir'>): Outcome {
  const { dir, name, tag } = input;
  if (!state.directory(dir)) return 'ENOENT';
  const present = state.at(dir, name);
  if (present !== undefined) {
    if (input.kind === 'mkdir' || input.exclusive) return 'EEXIST';
    return state.isDirectory(present) ? 'EISDIR' : `${present} file`;
  }
  const made = input.kind === 'mkdir' ? directory(dir) : { ...directory(0), entries: undefined };
  const next = state.with([bound(state, dir, name, tag), [tag, made]]);
  return { next, output: input.kind === 'mkdir' ? OK : `${tag} file` };
}

function unlinked(state: TreeState, tag: number): [number, Partial<Node>] {
  return [tag, { names: (state.nodes.get(tag) as Node).names - 1 }];
}

function remove(state: TreeState, { kind, dir, name }: Named<'unlink' | 'rmdir'>): Outcome {
  const present = state.at(dir, name);
  if (present === undefined) return 'ENOENT';
  const isDirectory = state.isDirectory(present);
  if (kind === 'unlink' && isDirectory) return 'EISDIR';
  if (kind === 'rmdir' && !isDirectory) return 'ENOTDIR';
  if (state.directory(present)?.size) return 'ENOTEMPTY';
  return { next: state.with([bound(state, dir, name, undefined), unlinked(state, present)]), output: OK };
}

function link(state: TreeState, { tag, dir, name }: Named<'link'>): Outcome {
  if (!state.directory(dir)) return 'ENOENT';
  if (state.at(dir, name) !== undefined) return 'EEXIST';
  const names = state.nodes.get(tag)?.names ?? 0;
  if (names === 0) return 'ENOENT';
  return { next: state.with([bound(state, dir, name, tag), [tag, { names: names + 1 }]]), output: OK };
}

function rename(state: TreeState, input: Named<'rename'>): Outcome {
  const { dir, name, toDir, toName, flags } = input;
  const moved = state.at(dir, name);
  if (moved === undefined || !state.directory(toDir)) return 'ENOENT';
  const replaced = state.at(toDir, toName);
  if (flags === RENAME_NOREPLACE && replaced !== undefined) return 'EEXIST';
  if (flags === RENAME_EXCHANGE && replaced === undefined) return 'ENOENT';
  if (state.holds(moved, toDir)) return 'EINVAL';
  if (replaced !== undefined && state.holds(replaced, dir)) {
    return flags === RENAME_EXCHANGE ? 'EINVAL' : 'ENOTEMPTY';
  }
  // Two names of one file: nothing happens (rename(2)).
  if (moved === replaced) return { next: state, output: OK };
  const goes: [number, Partial<Node>][] = state.isDirectory(moved) ? [[moved, { parent: toDir }]] : [];
  if (replaced !== undefined && flags === RENAME_EXCHANGE) {
    if (state.isDirectory(replaced)) goes.push([replaced, { parent: dir }]);
    const there = state.with([bound(state, toDir, toName, moved), ...goes]);
    return { next: there.with([bound(there, dir, name, replaced)]), output: OK };
  }
  if (replaced !== undefined) {
    if (state.isDirectory(moved) && !state.isDirectory(replaced)) return 'ENOTDIR';
    if (!state.isDirectory(moved) && state.isDirectory(replaced)) return 'EISDIR';
    if (state.directory(replaced)?.size) return 'ENOTEMPTY';
    goes.push(unlinked(state, replaced));
  }
  const taken = state.with([bound(state, dir, name, undefined), ...goes]);
  return { next: taken.with([bound(taken, toDir, toName, moved)]), output: OK };
}

function perform(state: TreeState, input: TreeInput): Outcome | undefined {
  switch (input.kind) {
    case 'create':
    case 'mkdir':
      return make(state, input);
    case 'unlink':
    case 'rmdir':
      return remove(state, input);
    case 'link':
      return link(state, input);
    case 'rename':
      return rename(state, input);
    case 'lookup': {
      const present = state.at(input.dir, input.name);
      if (present === undefined) return 'ENOENT';
      return `${present} ${state.isDirectory(present) ? 'dir' : 'file'}`;
    }
    case 'list':
      return listed(state.directory(input.dir) ?? new Map());
  }
  const node = state.nodes.get(input.tag);
  if (!node) return undefined;
  switch (input.kind) {
    case 'chmod':
      return { next: state.with([[input.tag, { mode: input.mode }]]), output: OK };
    case 'setxattr':
      return { next: state.with([[input.tag, { value: input.value }]]), output: OK };
    case 'stat':
      return `${node.mode.toString(8)} ${state.links(input.tag)}`;
    case 'getxattr':
      return node.value;
  }
}

/**
 * The kernel looks up both names of a rename, one after the other, and refuses some by the second alone. Each such
 * refusal needs no more than that it is true of that name at that moment.
 */
function refusesRename(state: TreeState, { flags, ...input }: Named<'rename'>, error: string): boolean {
  const there = state.at(input.toDir, input.toName);
  if (there === undefined) return false;
  if (flags === RENAME_EXCHANGE) return false;
  if (error === 'EEXIST') return flags === RENAME_NOREPLACE;
  if (error === 'EISDIR') return state.isDirectory(there);
  if (error === 'ENOTDIR') return !state.isDirectory(there);
  return error === 'ENOTEMPTY' && (state.directory(there)?.size ?? 0) > 0;
}

/**
 * Another mount made the same move while the kernel looked up the two names of this one, one after the other: both stand for
 * one inode then, and nothing is to be done.
 */
function meetsItself(state: TreeState, input: Named<'rename'>, output: TreeOutput): boolean {
  if (output !== OK || input.meets !== true || input.flags === RENAME_NOREPLACE) return false;
  return state.at(input.dir, input.name) === undefined && state.at(input.toDir, input.toName) !== undefined;
}

/**
 * The same with an exchange of the two names on another mount: both are there afterwards, so the answer does not tell whether
 * anything was done. Who judges tries both.
 */
function idles(state: TreeState, { dir, name, toDir, toName }: Named<'rename'>): TreeState | undefined {
  return state.at(dir, name) !== undefined && state.at(toDir, toName) !== undefined ? state : undefined;
}

/** The servers forget a directory that is removed; who has it open still knows what it was. */
function mayAnswerOfRemoved(state: TreeState, tag: number, output: TreeOutput): boolean {
  const node = state.nodes.get(tag);
  return node?.entries !== undefined && node.names === 0 && (output === 'ESTALE' || / 0$/.test(output));
}

/**
 * A directory that another mount has moved, and that is in use here, is given its new place by the kernel when it is looked up.
 * It does not wait for whoever works in the old place: the call fails, tried twice (d_splice_alias).
 */
function mayBeMoving(state: TreeState, input: TreeInput): boolean {
  const isDirectory = (dir: number, name: string): boolean => state.isDirectory(state.at(dir, name) ?? 0);
  if (input.kind === 'rename' && isDirectory(input.toDir, input.toName)) return true;
  return 'name' in input && isDirectory(input.dir, input.name);
}

/** What is left open by the standard or given up by the file system, or a call that looks at two things in turn. */
function mayAnswer(state: TreeState, input: TreeInput, output: TreeOutput): boolean {
  const used = [
    ...('dir' in input ? [input.dir] : [input.tag]),
    ...(input.kind === 'rename' ? [input.toDir] : []),
  ];
  if (used.some((tag) => mayAnswerOfRemoved(state, tag, output))) return true;
  if (output === 'ESTALE') return mayBeMoving(state, input);
  if (input.kind === 'rename')
    return meetsItself(state, input, output) || refusesRename(state, input, output);
  if (input.kind === 'list') return output === 'ENOENT' && !state.directory(input.dir);
  // A file without a name may be found to be so before anything is said of its new one.
  if (input.kind === 'link') return output === 'ENOENT' && state.nodes.get(input.tag)?.names === 0;
  return false;
}

const ERROR = /^E[A-Z]+$/;

function observes(input: TreeInput, output: TreeOutput): boolean {
  if (ERROR.test(output)) return true;
  if (input.kind === 'create') return output !== `${input.tag} file`; // it was there
  return ['lookup', 'list', 'stat', 'getxattr'].includes(input.kind);
}

/** The one answer that the model itself gives. @returns undefined: it knows no such inode */
export function treeAnswer(state: TreeState, input: TreeInput): TreeOutput | undefined {
  const outcome = perform(state, input);
  return typeof outcome === 'object' ? outcome.output : outcome;
}

/**
 * @param roots directories that are there from the beginning
 * @param wanted tags that are still used by descriptor when they have no name any more; others are forgotten then
 */
export function treeModel(
  roots: readonly number[],
  wanted: ReadonlySet<number>,
): Model<TreeState, TreeInput, TreeOutput> {
  const forgotten = (state: TreeState): TreeState => {
    const gone = [...state.nodes].filter(([tag, node]) => node.names === 0 && !wanted.has(tag));
    return gone.length === 0 ? state : state.without(gone.map(([tag]) => tag));
  };
  return {
    initial: TreeState.of(roots),
    step(state, input, output) {
      if (input.kind === 'rename' && input.idle) return idles(state, input);
      const outcome = perform(state, input);
      const found = typeof outcome === 'object' ? outcome.output : outcome;
      const next = typeof outcome === 'object' ? outcome.next : state;
      if (output === undefined || output === found) return next === state ? state : forgotten(next);
      return mayAnswer(state, input, output) ? state : undefined;
    },
    observes,
    key: (state) => state.key,
  };
}

/** Tags that calls of a history get by descriptor. */
export function tagsByDescriptor(inputs: Iterable<TreeInput>): Set<number> {
  const tags = new Set<number>();
  for (const input of inputs) {
    if ('dir' in input) tags.add(input.dir);
    if (input.kind === 'rename') tags.add(input.toDir);
    if (['link', 'chmod', 'setxattr', 'stat', 'getxattr'].includes(input.kind))
      tags.add((input as { tag: number }).tag);
  }
  return tags;
}
