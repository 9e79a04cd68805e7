import type { Prng } from '../../../common/prng.js';

/**
 * A long sequence of changes that one program makes in one directory, and what each prefix of it leaves: the names that a crash
 * leaves must be those of one of them. What a file holds may be of a later moment than the names: commits of a file that is
 * written again and again are made together, in the place of the first.
 */

export type NameChange =
  | { do: 'create'; path: string; text: string }
  | { do: 'append'; path: string; text: string }
  | { do: 'mkdir' | 'unlink' | 'sync'; path: string }
  | { do: 'rename' | 'link'; path: string; to: string };

const DIRECTORIES = 4;
const NAMES_MAX = 40;

/** As nodeScript: args are the directory and a file with changes in JSON; prints the number of changes made so far, and `synced` before it behind a sync. */
export const CHANGER = `
  const [dir, file] = args; const at = (name) => path.join(dir, name);
  const root = fs.openSync(dir, 'r');
  const acts = {
    create: (one) => fs.writeFileSync(at(one.path), one.text, { flag: 'wx' }),
    append: (one) => fs.appendFileSync(at(one.path), one.text),
    mkdir: (one) => fs.mkdirSync(at(one.path)),
    unlink: (one) => fs.unlinkSync(at(one.path)),
    rename: (one) => fs.renameSync(at(one.path), at(one.to)),
    link: (one) => fs.linkSync(at(one.path), at(one.to)),
  };
  let made = 0;
  for (const one of JSON.parse(fs.readFileSync(file, 'utf8'))) {
    if (one.do === 'sync') fs.fsyncSync(root); else acts[one.do](one);
    made++;
    fs.writeSync(1, (one.do === 'sync' ? 'synced ' : '') + made + '\\n');
  }`;

/** Prints a line for each name below args[0]: path, link count, contents. */
export const LISTER = `
  const list = (dir, prefix) => {
    for (const entry of fs.readdirSync(dir, { withFileTypes: true })) {
      const name = path.join(dir, entry.name);
      if (entry.isDirectory()) { console.log(prefix + entry.name + '/'); list(name, prefix + entry.name + '/'); }
      else console.log(prefix + entry.name, fs.statSync(name).nlink, fs.readFileSync(name, 'latin1'));
    }
  };
  list(args[0], '');`;

/** What a file held behind the change of this number, and until the next version. */
interface Version {
  at: number;
  text: string;
}

interface File {
  links: number;
  readonly versions: Version[];
}

/** The names of one moment, in memory; of the files everything that they ever held. */
class Names {
  readonly #names = new Map<string, File | undefined>();
  readonly #versions: Map<number, Version[]>;

  /** @param versions of each file, by the number of the change that made it; added to */
  constructor(versions = new Map<number, Version[]>()) {
    this.#versions = versions;
  }

  get files(): string[] {
    return [...this.#names].filter(([, file]) => file).map(([path]) => path);
  }

  /** Makes the change of number `at`, the next one. */
  make(change: NameChange, at: number): void {
    if (change.do === 'sync') return;
    const file = this.#names.get(change.path);
    if (change.do === 'mkdir') this.#names.set(change.path, undefined);
    else if (change.do === 'create') this.#create(change, at);
    else if (!file) throw new Error(`no file ${change.path}`);
    else if (change.do === 'append') {
      const text = (file.versions.findLast((version) => version.at < at)?.text ?? '') + change.text;
      if ((file.versions.at(-1)?.at ?? at) < at) file.versions.push({ at, text });
    } else if (change.do === 'link') this.#put(change.to, file);
    else {
      this.#remove(change.path);
      if (change.do === 'rename') this.#put(change.to, file);
    }
  }

  #create({ path, text }: { path: string; text: string }, at: number): void {
    const versions = this.#versions.get(at) ?? [{ at, text }];
    this.#versions.set(at, versions);
    this.#names.set(path, { links: 1, versions });
  }

  #put(path: string, file: File): void {
    this.#remove(path);
    this.#names.set(path, file);
    file.links++;
  }

  #remove(path: string): void {
    const file = this.#names.get(path);
    if (file) file.links--;
    this.#names.delete(path);
  }

  /**
   * Whether this is what LISTER has printed when `made` changes were made. What a file holds may be of a later moment than the
   * names, but not of an earlier one; the last file may have been made and not written: open(2) and write(2) are two.
   */
  isShown(lines: readonly string[], made: number): boolean {
    if (lines.length !== this.#names.size) return false;
    return lines.every((line) => {
      if (line.endsWith('/')) return this.#names.has(line.slice(0, -1));
      const [path = '', links, text = ''] = line.split(' ');
      const file = this.#names.get(path);
      if (!file || file.links !== Number(links)) return false;
      const now = file.versions.findLast(({ at }) => at < made)?.text;
      const later = file.versions.some((version) => version.at >= made && version.text === text);
      return text === now || later || (text === '' && file.versions[0]?.at === made - 1);
    });
  }
}

/**
 * Creates, appends, links, renames within and between directories, unlinks; a sync every `syncEvery` changes. Nothing is
 * written over: such bytes may be there before changes of names that were made earlier, as on local file systems.
 */
export function nameChanges(count: number, syncEvery: number, prng: Prng): NameChange[] {
  const changes: NameChange[] = [];
  const names = new Names();
  const make = (change: NameChange): void => {
    names.make(change, changes.length);
    changes.push(change);
  };
  const place = (): string => {
    const dir = prng.int(DIRECTORIES + 1);
    return `${dir === 0 ? '' : `d${dir}/`}n${changes.length}`;
  };
  for (let dir = 1; dir <= DIRECTORIES; dir++) make({ do: 'mkdir', path: `d${dir}` });
  while (changes.length < count) {
    const { files } = names;
    const path = files[prng.int(Math.max(1, files.length))];
    const act = prng.int(10);
    const text = `${changes.length}.`.repeat(1 + prng.int(400));
    if (changes.length % syncEvery === 0) make({ do: 'sync', path: '' });
    else if (path === undefined || (act < 4 && files.length < NAMES_MAX))
      make({ do: 'create', path: place(), text });
    else if (act < 5) make({ do: 'append', path, text: `${changes.length}.` });
    else if (act < 7) make({ do: 'unlink', path });
    else make({ do: act < 8 ? 'link' : 'rename', path, to: place() });
  }
  return changes;
}

/**
 * How many of the changes the listing shows.
 * @param listing what LISTER printed
 * @param to how many were begun
 * @returns undefined: it is no prefix; else the smallest number of changes between `from` and `to` that leaves it
 */
export function prefixShown(
  changes: readonly NameChange[],
  listing: string,
  from: number,
  to: number,
): number | undefined {
  const lines = listing.split('\n').filter(Boolean);
  const begun = changes.slice(0, to);
  const versions = new Map<number, Version[]>();
  const all = new Names(versions);
  for (const [at, change] of begun.entries()) all.make(change, at);
  const names = new Names(versions);
  for (const [at, change] of begun.entries()) {
    if (at >= from && names.isShown(lines, at)) return at;
    names.make(change, at);
  }
  return names.isShown(lines, to) ? to : undefined;
}
