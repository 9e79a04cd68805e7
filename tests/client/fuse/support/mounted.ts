import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { BindingChoice } from '../../../../client/fuse/choose.js';
import { findMount } from '../../../../client/fuse/mount-point.js';
import { abortMounts } from '../../../lab/directories.js';
import type { ServeCommand, ServeOptions, TraceEntry } from './serve.js';
import { runShell, sh } from './shell.js';

interface Answer {
  id?: number;
  result?: unknown;
  error?: string;
  ready?: true;
  ended?: true;
  failed?: string;
}

const COMMAND_TIMEOUT_MS = 15_000;
const THREADS = '8';

/** This file as TypeScript when the tests run from the sources. */
function serveScript(): string {
  const here = fileURLToPath(import.meta.url);
  return path.join(path.dirname(here), `serve${path.extname(here)}`);
}

/** Whether this machine can run the tests on real mounts: root and /dev/fuse. */
export function canMount(): boolean {
  return process.getuid?.() === 0 && existsSync('/dev/fuse');
}

/** Directories of mounts; the number is the pid of the process that made them. */
const PREFIX = 'holdfast-fuse-';

/** Ends the mounts of test processes that were killed: nobody else would, and whoever looks into one hangs. */
export async function removeLeftovers(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const owner = new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1];
    if (owner === undefined || existsSync(`/proc/${owner}`)) continue;
    const base = path.join(tmpdir(), name);
    abortMounts(base);
    await rm(base, { recursive: true, force: true });
  }
}

/** A memory file system mounted by a child process. */
export class Mounted {
  /** Resolves with the exit code of the serving process. */
  readonly exited: Promise<number | null>;
  private readonly waiting = new Map<number, (answer: Answer) => void>();
  private nextId = 1;

  private constructor(
    readonly mountPoint: string,
    readonly child: ChildProcess,
    private readonly base: string,
  ) {
    this.exited = new Promise((resolve) => child.once('exit', (code) => resolve(code)));
    child.on('message', (answer: Answer) => {
      if (answer.id === undefined) return;
      this.waiting.get(answer.id)?.(answer);
      this.waiting.delete(answer.id);
    });
  }

  /** @throws Error with the message of the serving process when it cannot mount */
  static async start(binding: BindingChoice, options: Partial<ServeOptions> = {}): Promise<Mounted> {
    await removeLeftovers();
    const base = await mkdtemp(path.join(tmpdir(), `${PREFIX}${process.pid}-`));
    const mountPoint = options.mountPoint ?? path.join(base, 'mnt');
    if (!options.mountPoint) await sh(base, 'mkdir mnt');
    const child = fork(serveScript(), [JSON.stringify({ binding, ...options, mountPoint })], {
      env: { ...process.env, UV_THREADPOOL_SIZE: THREADS },
    });
    const mounted = new Mounted(mountPoint, child, base);
    const [first] = (await once(child, 'message')) as [Answer];
    if (first.failed !== undefined) {
      await rm(base, { recursive: true, force: true });
      throw new Error(first.failed);
    }
    return mounted;
  }

  sh(script: string): Promise<string> {
    return sh(this.mountPoint, script);
  }

  async command(command: ServeCommand): Promise<unknown> {
    const id = this.nextId++;
    const answer = await new Promise<Answer>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`no answer to ${command.command}`)),
        COMMAND_TIMEOUT_MS,
      );
      this.waiting.set(id, (got) => {
        clearTimeout(timer);
        resolve(got);
      });
      this.child.send({ id, ...command }, (error) => {
        if (error) reject(error);
      });
    });
    if (answer.error !== undefined) throw new Error(answer.error);
    return answer.result;
  }

  /** The requests since the last call. */
  async trace(): Promise<TraceEntry[]> {
    return (await this.command({ command: 'trace' })) as TraceEntry[];
  }

  async isMounted(): Promise<boolean> {
    return (await findMount(this.mountPoint)) !== undefined;
  }

  /** Ends the mount in any state: politely, then by killing its process and aborting its connection. */
  async stop(): Promise<void> {
    if (this.child.exitCode === null && this.child.connected) {
      await this.command({ command: 'unmount', graceMs: 1000 }).catch(() => undefined);
    }
    if (await this.isMounted()) await runShell('/', `umount -f -l ${this.mountPoint}`);
    if (this.child.exitCode === null && this.child.signalCode === null) {
      const timer = setTimeout(() => this.child.kill('SIGKILL'), COMMAND_TIMEOUT_MS);
      await this.exited;
      clearTimeout(timer);
    }
    assert.equal(await this.isMounted(), false);
    await rm(this.base, { recursive: true, force: true });
  }
}
