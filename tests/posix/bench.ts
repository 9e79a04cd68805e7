import { chmodSync, mkdirSync } from 'node:fs';
import { Agent, type Attributes } from './agent.js';

/** Users without any right of their own; bob is also in a further group. */
export const ALICE = { uid: 64_001, gid: 64_001 };
export const BOB = { uid: 64_002, gid: 64_002, groups: [64_003] };
export const ROOT_USER = { uid: 0, gid: 0 };

/** What a suite works on: three users, each in a process of its own, in a directory made for the present case. */
export interface Bench {
  readonly root: Agent;
  readonly alice: Agent;
  readonly bob: Agent;
}

/** What the file system under test offers beyond POSIX.1; false skips the cases. */
export interface Features {
  /** user.* attributes on files, trusted.* for root. */
  xattrs: boolean;
  acls: boolean;
  /** O_TMPFILE, copy_file_range, fallocate modes, SEEK_DATA and SEEK_HOLE. */
  linux: boolean;
  /** fallocate(2) takes the space. */
  reserves: boolean;
  /** Reads bring the atime behind mtime and ctime (mount option relatime, the default of Linux). */
  relatime: boolean;
  /** chattr(1): immutable, append-only, no dump, no atime. */
  flags: boolean;
}

/** Registers hooks: a working directory of mode 0777 for each case, which its three users are in. */
export function benchOf(dir: () => string): Bench {
  let root: Agent;
  let alice: Agent;
  let bob: Agent;
  let next = 0;
  before(async () => {
    [root, alice, bob] = [ROOT_USER, ALICE, BOB].map((user) => new Agent(dir(), user)) as [
      Agent,
      Agent,
      Agent,
    ];
  });
  beforeEach(async () => {
    const work = `${dir()}/case-${next++}-${process.pid}`;
    await root.ok('mkdir', work, 0o777);
    for (const agent of [root, alice, bob]) await agent.ok('reset', work);
  });
  after(() => {
    for (const agent of [root, alice, bob]) agent?.end();
  });
  return {
    get root() {
      return root;
    },
    get alice() {
      return alice;
    },
    get bob() {
      return bob;
    },
  };
}

const TIMES = ['atime', 'mtime', 'ctime'] as const;

/** Which times of `path` an action changes, by name, in the order atime, mtime, ctime. */
export async function touchedTimes(
  agent: Agent,
  path: string,
  action: () => Promise<unknown>,
): Promise<string> {
  const before: Attributes = await agent.lstat(path);
  await agent.ok('tick');
  await action();
  const after: Attributes = await agent.lstat(path);
  return TIMES.filter((time) => before[time] !== after[time]).join(' ');
}

/** Makes a directory that any user may enter. */
export function openDirectory(path: string): void {
  mkdirSync(path, { recursive: true });
  chmodSync(path, 0o755);
}

/** The name of the longest entry that a directory takes. */
export const LONGEST_NAME = 'n'.repeat(255);
