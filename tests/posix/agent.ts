import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { systemClock, type Timer } from '../../common/clock.js';
import { ROOT } from '../lab/command.js';

/** A call that takes longer than this hangs, unless somebody asks for more: the agent is killed, and the test fails. */
const CALL_TIMEOUT_MS = 60_000;
const AGENT = join(ROOT, 'tests', 'posix', 'agent.py');

export interface User {
  uid: number;
  gid: number;
  groups?: number[];
}

/** What stat(2) says; times in nanoseconds, as decimal text. */
export interface Attributes {
  type: 'file' | 'dir' | 'symlink' | 'fifo' | 'socket' | 'char' | 'block';
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  size: number;
  ino: number;
  rdev: number;
  blocks: number;
  dev: number;
  atime: string;
  mtime: string;
  ctime: string;
}

export type Argument = string | number | boolean | null | readonly Argument[];
export type Answer = { value: unknown; errno?: undefined } | { errno: string; value?: undefined };

interface Waiting {
  resolve(answer: Answer | Answer[]): void;
  reject(error: Error): void;
  timer: Timer;
}

/** A process of its own that makes system calls as one user (agent.py lists them), with the umask 0. */
export class Agent {
  readonly user: User;
  readonly #child: ChildProcess;
  readonly #waiting: Waiting[] = [];
  readonly #timeoutMs: number;
  #stderr = '';
  #ended = false;

  /** @param timeoutMs a call that takes longer hangs: the process is killed */
  constructor(dir: string, user: User, timeoutMs = CALL_TIMEOUT_MS) {
    this.user = user;
    this.#timeoutMs = timeoutMs;
    const { uid, gid, groups = [] } = user;
    this.#child = spawn('python3', [AGENT, String(uid), String(gid), groups.join(','), dir], {
      stdio: ['pipe', 'pipe', 'pipe'],
      cwd: '/',
      env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1', LC_ALL: 'C.UTF-8' },
    });
    this.#child.stderr?.on('data', (chunk) => {
      this.#stderr += String(chunk);
    });
    createInterface({ input: this.#child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      const waiting = this.#waiting.shift();
      waiting?.timer.cancel();
      waiting?.resolve(JSON.parse(line) as Answer | Answer[]);
    });
    this.#child.on('close', () => {
      this.#ended = true;
      for (const waiting of this.#waiting.splice(0)) {
        waiting.timer.cancel();
        waiting.reject(new Error(`the agent of user ${uid} ended: ${this.#stderr}`));
      }
    });
  }

  /** Makes a call. Calls of one agent are answered in order. */
  call(name: string, ...args: Argument[]): Promise<Answer> {
    return this.#ask([name, ...args], `${name}(${args.join(', ')})`) as Promise<Answer>;
  }

  /** Makes calls one after the other, whatever comes of each. */
  calls(list: readonly (readonly [string, ...Argument[]])[]): Promise<Answer[]> {
    return this.#ask(list, `one of ${list.length} calls`) as Promise<Answer[]>;
  }

  #ask(request: unknown, shown: string): Promise<Answer | Answer[]> {
    return new Promise((resolve, reject) => {
      if (this.#ended) {
        reject(new Error(`the agent of user ${this.user.uid} has ended: ${this.#stderr}`));
        return;
      }
      const timer = systemClock.after(this.#timeoutMs, () => {
        this.#stderr += `${shown} hangs`;
        this.#child.kill('SIGKILL');
      });
      this.#waiting.push({ resolve, reject, timer });
      this.#child.stdin?.write(`${JSON.stringify(request)}\n`);
    });
  }

  /** @returns the result of a call that must succeed */
  async ok<T = unknown>(name: string, ...args: Argument[]): Promise<T> {
    const answer = await this.call(name, ...args);
    const shown = `${name}(${args.map((arg) => JSON.stringify(arg).slice(0, 80)).join(', ')})`;
    assert.equal(answer.errno, undefined, `${shown} as user ${this.user.uid}`);
    return answer.value as T;
  }

  /** The call must fail with this errno (or with one of several that the standard allows). */
  async fails(errno: string | readonly string[], name: string, ...args: Argument[]): Promise<void> {
    const answer = await this.call(name, ...args);
    const shown = `${name}(${args.map((arg) => JSON.stringify(arg).slice(0, 80)).join(', ')})`;
    const got = answer.errno ?? `success ${JSON.stringify(answer.value)}`;
    if (typeof errno === 'string') assert.equal(got, errno, `${shown} as user ${this.user.uid}`);
    else
      assert.ok(errno.includes(got), `${shown} as user ${this.user.uid}: ${got}, not ${errno.join(' or ')}`);
  }

  stat(path: string): Promise<Attributes> {
    return this.ok('stat', path);
  }

  lstat(path: string): Promise<Attributes> {
    return this.ok('lstat', path);
  }

  fstat(fd: number): Promise<Attributes> {
    return this.ok('fstat', fd);
  }

  open(path: string, flags: string, mode = 0o666): Promise<number> {
    return this.ok('open', path, flags, mode);
  }

  /** Makes a file with this content. */
  async file(path: string, content = '', mode = 0o644): Promise<void> {
    await this.ok('writeAll', path, content, mode);
    await this.ok('chmod', path, mode);
  }

  end(): void {
    this.#child.stdin?.end();
    this.#child.kill('SIGKILL');
  }
}
