import { RENAME_EXCHANGE, RENAME_NOREPLACE } from '../../../proto/types.js';
import type { Model } from './linearizability.js';

/** Each file is known by a tag of its creator's (it is the owner's number in its attributes). */
export type NameInput =
  | { kind: 'create'; dir: number; name: string; tag: number; exclusive: boolean }
  | { kind: 'unlink' | 'lookup'; dir: number; name: string }
  | { kind: 'list'; dir: number }
  | { kind: 'link'; tag: number; dir: number; name: string }
  | { kind: 'rename'; dir: number; name: string; toDir: number; toName: string; flags: number };

export interface NameOutput {
  /** Name of the errno; absent: success. */
  error?: string;
  /** Of the file that was found or made. */
  tag?: number;
  /** Sorted. */
  names?: string;
}

/** The file behind each `dir/name`. Never changed in place; what is derived from it is kept, for a search asks again and again. */
export class NameState {
  static readonly EMPTY = new NameState(new Map());
  readonly #tags: ReadonlyMap<string, number>;
  readonly #listings: string[] = [];
  #key: string | undefined;

  private constructor(tags: ReadonlyMap<string, number>) {
    this.#tags = tags;
  }

  get(name: string): number | undefined {
    return this.#tags.get(name);
  }

  /** Has the file any name? */
  has(tag: number): boolean {
    for (const each of this.#tags.values()) if (each === tag) return true;
    return false;
  }

  with(changes: Record<string, number | undefined>): NameState {
    const next = new Map(this.#tags);
    for (const [name, tag] of Object.entries(changes)) {
      if (tag === undefined) next.delete(name);
      else next.set(name, tag);
    }
    return new NameState(next);
  }

  get key(): string {
    this.#key ??= sorted([...this.#tags]);
    return this.#key;
  }

  /** What one directory holds, as a list's output names it. */
  listing(dir: number): string {
    const prefix = `${dir}/`;
    this.#listings[dir] ??= sorted(
      [...this.#tags]
        .filter(([name]) => name.startsWith(prefix))
        .map(([name, tag]) => [name.slice(prefix.length), tag]),
    );
    return this.#listings[dir] as string;
  }
}

function sorted(tags: [name: string, tag: number][]): string {
  return tags
    .map(([name, tag]) => `${name}=${tag}`)
    .sort()
    .join(' ');
}

interface Outcome {
  next: NameState;
  output: NameOutput;
}

function rename(state: NameState, input: Extract<NameInput, { kind: 'rename' }>): Outcome {
  const from = `${input.dir}/${input.name}`;
  const to = `${input.toDir}/${input.toName}`;
  const moved = state.get(from);
  const replaced = state.get(to);
  if (moved === undefined) return { next: state, output: { error: 'ENOENT' } };
  if (input.flags === RENAME_NOREPLACE && replaced !== undefined) {
    return { next: state, output: { error: 'EEXIST' } };
  }
  if (input.flags === RENAME_EXCHANGE) {
    if (replaced === undefined) return { next: state, output: { error: 'ENOENT' } };
    return { next: state.with({ [from]: replaced, [to]: moved }), output: {} };
  }
  // Two names of one file: nothing happens (rename(2)).
  if (moved === replaced) return { next: state, output: {} };
  return { next: state.with({ [from]: undefined, [to]: moved }), output: {} };
}

function perform(state: NameState, input: NameInput): Outcome {
  if (input.kind === 'list') return { next: state, output: { names: state.listing(input.dir) } };
  if (input.kind === 'rename') return rename(state, input);
  const key = `${input.dir}/${input.name}`;
  const present = state.get(key);
  switch (input.kind) {
    case 'lookup':
      return { next: state, output: present === undefined ? { error: 'ENOENT' } : { tag: present } };
    case 'unlink':
      if (present === undefined) return { next: state, output: { error: 'ENOENT' } };
      return { next: state.with({ [key]: undefined }), output: {} };
    case 'link': {
      if (present !== undefined) return { next: state, output: { error: 'EEXIST' } };
      if (!state.has(input.tag)) return { next: state, output: { error: 'ENOENT' } };
      return { next: state.with({ [key]: input.tag }), output: {} };
    }
    case 'create':
      if (present === undefined)
        return { next: state.with({ [key]: input.tag }), output: { tag: input.tag } };
      if (input.exclusive) return { next: state, output: { error: 'EEXIST' } };
      return { next: state, output: { tag: present } };
  }
}

/** Directories of files with names, links and renames; no subdirectories. */
export const namespaceModel: Model<NameState, NameInput, NameOutput> = {
  initial: NameState.EMPTY,
  step(state, input, output) {
    const { next, output: expected } = perform(state, input);
    if (output === undefined) return next;
    // A file without a name is there for a while, or is not: then that is said before anything of the new name.
    if (input.kind === 'link' && output.error === 'ENOENT') return state.has(input.tag) ? undefined : state;
    const same =
      expected.error === output.error && expected.tag === output.tag && expected.names === output.names;
    return same ? next : undefined;
  },
  observes(input, output) {
    if (input.kind === 'list' || input.kind === 'lookup' || output.error !== undefined) return true;
    return input.kind === 'create' && output.tag !== input.tag; // it was there
  },
  key: (state) => state.key,
};
