import type { FileLock } from '../../../../client/fuse/binding.js';
import type { Interrupt } from '../../../../client/wait.js';
import { HoldfastError } from '../../../../proto/errors.js';

interface Held {
  ino: number;
  owner: bigint;
  flock: boolean;
  lock: FileLock;
}

interface Waiter {
  held: Held;
  grant(): void;
}

/** Advisory locks of all files: fcntl ranges and flock, which do not see each other. */
export class MemoryLocks {
  private held: Held[] = [];
  private readonly waiters = new Set<Waiter>();

  /** The first lock that is in the way, or undefined. */
  conflict(wanted: Held): FileLock | undefined {
    return this.held.find((other) => conflicts(other, wanted))?.lock;
  }

  async set(wanted: Held, wait: boolean, signal: Interrupt): Promise<void> {
    if (wanted.lock.type !== 'unlock' && this.conflict(wanted)) {
      if (!wait) throw new HoldfastError('EAGAIN');
      await this.wait(wanted, signal);
      return;
    }
    this.apply(wanted);
  }

  /** Drops all locks of an owner, of one kind, on a file. */
  drop(ino: number, owner: bigint, flock: boolean): void {
    this.held = this.held.filter((each) => each.ino !== ino || each.owner !== owner || each.flock !== flock);
    this.wake();
  }

  private wait(held: Held, signal: Interrupt): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiter = { held, grant: resolve };
      this.waiters.add(waiter);
      const interrupt = (): void => {
        this.waiters.delete(waiter);
        reject(new HoldfastError('EINTR'));
      };
      if (signal.aborted) interrupt();
      else signal.addEventListener('abort', interrupt, { once: true });
    });
  }

  private apply(wanted: Held): void {
    const kept: Held[] = [];
    for (const each of this.held) {
      if (!sameOwner(each, wanted) || !overlap(each.lock, wanted.lock)) {
        kept.push(each);
        continue;
      }
      const { start, end } = each.lock;
      if (start < wanted.lock.start) {
        kept.push({ ...each, lock: { ...each.lock, end: wanted.lock.start - 1 } });
      }
      if (end > wanted.lock.end) kept.push({ ...each, lock: { ...each.lock, start: wanted.lock.end + 1 } });
    }
    if (wanted.lock.type !== 'unlock') kept.push(wanted);
    this.held = kept;
    this.wake();
  }

  private wake(): void {
    for (const waiter of this.waiters) {
      if (this.conflict(waiter.held)) continue;
      this.waiters.delete(waiter);
      this.apply(waiter.held);
      waiter.grant();
      return;
    }
  }
}

function sameOwner(a: Held, b: Held): boolean {
  return a.ino === b.ino && a.owner === b.owner && a.flock === b.flock;
}

function overlap(a: FileLock, b: FileLock): boolean {
  return a.start <= b.end && b.start <= a.end;
}

function conflicts(a: Held, b: Held): boolean {
  if (a.ino !== b.ino || a.flock !== b.flock || a.owner === b.owner || !overlap(a.lock, b.lock)) return false;
  return a.lock.type === 'write' || b.lock.type === 'write';
}
