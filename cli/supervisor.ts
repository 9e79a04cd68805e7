import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Clock, Timer } from '../common/clock.js';
import { deferred } from '../common/deferred.js';
import { EXIT_USAGE } from './output.js';
import { processFlags } from './process-flags.js';
import { logFile, pidFile, removePid, writePid } from './run-files.js';

/** A server that died is started again after this time. */
export const RESTART_DELAY_MS = 1_000;
/** A process that was asked to stop is killed after this time. */
export const STOP_GRACE_MS = 20_000;
const LOG_TAIL_BYTES = 4_096;

export interface ProcessSpec {
  name: string;
  /** Arguments of the holdfast command. */
  args: string[];
  /** Runs before each start, for instance to clear what a killed predecessor left. */
  prepare?: () => Promise<unknown>;
}

export type ProcessState = 'starting' | 'running' | 'stopped' | 'restarting' | 'failed';

export interface SupervisorEvents {
  /** One line for a person about what happened. */
  event(name: string, line: string): void;
}

interface Managed {
  spec: ProcessSpec;
  child?: ChildProcess;
  state: ProcessState;
  exited: Promise<void>;
  restart?: Timer;
  /** Set when the exit was asked for. */
  stopping: boolean;
}

/**
 * Starts and watches the processes of a cluster. Each child's standard input is a pipe that only this process holds:
 * its end tells the child that the supervisor has died, and that it must stop too.
 */
export class Supervisor {
  readonly #dataDir: string;
  readonly #clock: Clock;
  readonly #restartDead: boolean;
  readonly #events: SupervisorEvents;
  readonly #managed = new Map<string, Managed>();

  constructor(options: { dataDir: string; clock: Clock; restart: boolean; events: SupervisorEvents }) {
    this.#dataDir = options.dataDir;
    this.#clock = options.clock;
    this.#restartDead = options.restart;
    this.#events = options.events;
  }

  names(): string[] {
    return [...this.#managed.keys()];
  }

  state(name: string): ProcessState | undefined {
    return this.#managed.get(name)?.state;
  }

  /** Declares a process without starting it. */
  add(spec: ProcessSpec): void {
    this.#managed.set(spec.name, { spec, state: 'stopped', exited: Promise.resolve(), stopping: false });
  }

  /** Starts a declared process; nothing happens when it runs already. */
  async start(name: string): Promise<void> {
    const managed = this.#get(name);
    managed.restart?.cancel();
    if (managed.child) return;
    managed.state = 'starting';
    managed.stopping = false;
    await managed.spec.prepare?.();
    // It may have been stopped meanwhile, and nobody would stop it again.
    if (managed.stopping) managed.state = 'stopped';
    else this.#spawn(managed);
  }

  /** Stops a process and waits until it has ended. `kill`: at once, as a crash would. */
  async stop(name: string, kill = false): Promise<void> {
    const managed = this.#get(name);
    managed.restart?.cancel();
    managed.stopping = true;
    if (!managed.child) {
      managed.state = 'stopped';
      return;
    }
    managed.child.kill(kill ? 'SIGKILL' : 'SIGTERM');
    // A process that is paused takes no SIGTERM until it runs again.
    if (!kill) managed.child.kill('SIGCONT');
    const timer = this.#clock.after(STOP_GRACE_MS, () => managed.child?.kill('SIGKILL'));
    await managed.exited;
    timer.cancel();
  }

  /** A process that is declared is started in this way from its next start on. */
  respecify(spec: ProcessSpec): void {
    const managed = this.#managed.get(spec.name);
    if (managed) managed.spec = spec;
  }

  /** Stops a process and forgets it. */
  async remove(name: string): Promise<void> {
    await this.stop(name);
    this.#managed.delete(name);
  }

  /** Kills everything at once. */
  killAll(): void {
    for (const managed of this.#managed.values()) {
      managed.restart?.cancel();
      managed.stopping = true;
      managed.child?.kill('SIGKILL');
    }
  }

  /** The last line that a process wrote to its log: the reason, when it refused to start. */
  lastLogLine(name: string): string {
    try {
      const path = logFile(this.#dataDir, name);
      const { size } = statSync(path);
      const buffer = Buffer.alloc(Math.min(size, LOG_TAIL_BYTES));
      const file = openSync(path, 'r');
      readSync(file, buffer, 0, buffer.length, size - buffer.length);
      closeSync(file);
      return (buffer.toString('utf8').trim().split('\n').at(-1) ?? '').replace(/^holdfast: /, '');
    } catch {
      return '';
    }
  }

  #get(name: string): Managed {
    const managed = this.#managed.get(name);
    if (!managed) throw new Error(`no process ${name}; there are ${this.names().join(', ')}`);
    return managed;
  }

  #spawn(managed: Managed): void {
    const { name, args } = managed.spec;
    const logPath = logFile(this.#dataDir, name);
    mkdirSync(dirname(logPath), { recursive: true });
    const log = openSync(logPath, 'a');
    const child = spawn(
      process.execPath,
      [...process.execArgv, ...processFlags(args[0]), process.argv[1] as string, ...args],
      {
        stdio: ['pipe', log, log],
        // Its own group: ^C on the terminal reaches only the supervisor, which stops things in order.
        detached: true,
        env: { ...process.env, HOLDFAST_SUPERVISED: '1' },
      },
    );
    closeSync(log);
    managed.child = child;
    managed.state = 'running';
    const exited = deferred<void>();
    managed.exited = exited.promise;
    const path = pidFile(this.#dataDir, name);
    if (child.pid !== undefined) writePid(path, child.pid);
    child.on('error', (error) => this.#events.event(name, `cannot start: ${error.message}`));
    child.on('exit', (code, signal) => {
      delete managed.child;
      removePid(path);
      this.#exited(managed, code, signal);
      exited.resolve();
    });
  }

  #exited(managed: Managed, code: number | null, signal: NodeJS.Signals | null): void {
    const { name } = managed.spec;
    if (managed.stopping) {
      managed.state = 'stopped';
      this.#events.event(name, 'stopped');
      return;
    }
    const how = signal ? `killed by ${signal}` : `ended with code ${code}`;
    if (code === EXIT_USAGE) {
      // It refused its input: starting it again would end in the same way.
      managed.state = 'failed';
      this.#events.event(name, `${how}: ${this.lastLogLine(name)}`);
      return;
    }
    if (!this.#restartDead) {
      managed.state = 'failed';
      this.#events.event(name, `${how}; not restarted`);
      return;
    }
    managed.state = 'restarting';
    this.#events.event(name, `${how}; restarting`);
    managed.restart = this.#clock.after(RESTART_DELAY_MS, () => {
      void this.start(name).then(
        () => this.#events.event(name, 'restarted'),
        (error: unknown) => this.#events.event(name, `cannot restart: ${String(error)}`),
      );
    });
  }
}
