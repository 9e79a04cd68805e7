import assert from 'node:assert/strict';
import fc from 'fast-check';
import { createPrng, type Prng } from '../../../common/prng.js';
import { LeaseCore } from '../../../metaserver/leases/lease-core.js';
import { type Lease, LeaseMode } from '../../../proto/gen/meta.js';

/**
 * Clients that cache under leases beside a plain table of versions: whoever believes something about an inode must be
 * right at every moment, however slowly answers, recalls and returns travel, and nobody may wait for ever.
 */

const SESSIONS = [1, 2, 3];
const INOS = 4;

interface Belief {
  lease: Lease;
  version: number;
}

/** To a client, in order: grants with what was read, and recalls. */
type Message = { kind: 'grant'; lease: Lease; version: number } | { kind: 'recall'; lease: Lease };

class World {
  readonly core: LeaseCore;
  readonly random: Prng;
  /** The truth: changes of each inode that were applied. */
  readonly versions = new Array<number>(INOS).fill(0);
  readonly toClient = new Map<number, Message[]>(SESSIONS.map((id) => [id, []]));
  readonly toServer = new Map<number, Lease[]>(SESSIONS.map((id) => [id, []]));
  readonly beliefs = new Map<number, Map<number, Belief>>(SESSIONS.map((id) => [id, new Map()]));
  /** Numbers up to which grants are void, by session and inode. */
  readonly voided = new Map<string, number>();
  readonly inLog: (() => void)[] = [];
  waiting = 0;
  now = 0;

  constructor(seed: number) {
    this.random = createPrng(seed);
    this.core = new LeaseCore(
      (session, leases) => {
        for (const lease of leases) this.queue(session, { kind: 'recall', lease });
      },
      { perSession: 3, total: 7, trim: 1 },
    );
    for (const id of SESSIONS) this.core.add(id, id !== 3 || seed % 3 !== 0);
  }

  queue(session: number, message: Message): void {
    (this.toClient.get(session) as Message[]).push(message);
  }

  /** Nobody believes what is not so; an exclusive belief is the only one. */
  check(): void {
    for (let ino = 0; ino < INOS; ino++) {
      const held = SESSIONS.flatMap((id) => this.beliefs.get(id)?.get(ino) ?? []);
      for (const { version } of held) assert.equal(version, this.versions[ino], `inode ${ino}`);
      const exclusive = held.some(({ lease }) => lease.mode === LeaseMode.LEASE_EXCLUSIVE);
      assert.ok(!exclusive || held.length === 1, `inode ${ino} is held exclusively and by ${held.length}`);
    }
  }

  read(session: number, ino: number, mode: LeaseMode): void {
    const answer = (): void => {
      assert.ok(this.core.readable(session, ino));
      const lease = this.core.grant(session, ino, mode, this.now);
      if (lease) this.queue(session, { kind: 'grant', lease, version: this.versions[ino] as number });
    };
    if (!this.core.readable(session, ino)) {
      this.waiting++;
      this.core.whenReadable(session, [ino], this.now, () => {
        this.waiting--;
        answer();
      });
    } else if (mode === LeaseMode.LEASE_EXCLUSIVE && this.core.heldByOthers(session, ino)) {
      this.waiting++;
      this.core.whenSole(session, ino, this.now, () => {
        this.waiting--;
        answer();
      });
    } else answer();
  }

  change(session: number, inos: number[]): void {
    this.waiting++;
    this.core.beginChange(session, inos, this.now, () => {
      this.waiting--;
      this.inLog.push(() => {
        for (const ino of inos) {
          this.versions[ino] = (this.versions[ino] as number) + 1;
          // Who makes a change knows it from the answer.
          const own = this.beliefs.get(session)?.get(ino);
          if (own) own.version = this.versions[ino] as number;
          for (const message of this.toClient.get(session) as Message[]) {
            if (message.kind === 'grant' && message.lease.ino === ino)
              message.version = this.versions[ino] as number;
          }
        }
        this.core.endChange(session, inos);
      });
    });
  }

  apply(): void {
    this.inLog.shift()?.();
  }

  /** A client takes its next message. */
  deliver(session: number): void {
    const message = this.toClient.get(session)?.shift();
    if (!message) return;
    const beliefs = this.beliefs.get(session) as Map<number, Belief>;
    const { ino, mode, seq } = message.lease;
    const key = `${session}/${ino}`;
    if (message.kind === 'grant') {
      if (seq > (this.voided.get(key) ?? 0)) beliefs.set(ino, message);
      return;
    }
    const belief = beliefs.get(ino);
    this.voided.set(key, Math.max(seq, this.voided.get(key) ?? 0));
    const kept = Math.min(mode, belief?.lease.mode ?? LeaseMode.LEASE_NONE);
    if (belief && belief.lease.seq <= seq) {
      // What it buffered goes into the log first, past whoever waits for the lease.
      if (belief.lease.mode === LeaseMode.LEASE_EXCLUSIVE && this.random.int(2) === 0)
        this.flush(session, ino);
      if (kept === LeaseMode.LEASE_NONE) beliefs.delete(ino);
      else belief.lease = { ...belief.lease, mode: kept };
    }
    (this.toServer.get(session) as Lease[]).push({ ino, mode: kept, seq });
  }

  flush(session: number, ino: number): void {
    const before = this.waiting;
    this.change(session, [ino]);
    assert.equal(this.waiting, before, 'the flush of an exclusive holder does not wait');
    while (this.inLog.length > 0) this.apply();
  }

  /** A client lets a lease go by itself. */
  giveUp(session: number): void {
    const beliefs = this.beliefs.get(session) as Map<number, Belief>;
    const [belief] = beliefs.values();
    if (!belief) return;
    const { ino, seq } = belief.lease;
    beliefs.delete(ino);
    (this.toServer.get(session) as Lease[]).push({ ino, mode: LeaseMode.LEASE_NONE, seq });
  }

  take(session: number): void {
    const lease = this.toServer.get(session)?.shift();
    if (lease) this.core.returned(session, [lease], this.now);
  }

  step(): void {
    const { random } = this;
    const session = SESSIONS[random.int(SESSIONS.length)] as number;
    const ino = random.int(INOS);
    switch (random.int(8)) {
      case 0:
        this.read(session, ino, LeaseMode.LEASE_SHARED);
        break;
      case 1:
        this.read(session, ino, LeaseMode.LEASE_EXCLUSIVE);
        break;
      case 2:
        this.change(session, random.int(2) === 0 ? [ino] : [ino, (ino + 1) % INOS]);
        break;
      case 3:
        this.apply();
        break;
      case 4:
        if (random.int(4) === 0) this.giveUp(session);
        break;
      case 5:
        this.take(session);
        break;
      default:
        this.deliver(session);
    }
    this.now++;
    this.check();
  }

  settle(): void {
    const busy = (): boolean =>
      this.inLog.length > 0 ||
      SESSIONS.some((id) => this.toClient.get(id)?.length || this.toServer.get(id)?.length);
    for (let rounds = 0; busy(); rounds++) {
      assert.ok(rounds < 1000, 'it comes to rest');
      for (const id of SESSIONS) {
        this.deliver(id);
        this.take(id);
      }
      this.apply();
      this.check();
    }
  }
}

describe('leases of caching clients', () => {
  it('never let anybody believe what is not so, nor wait for ever', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 31 - 1 }), (seed) => {
        const world = new World(seed);
        for (let i = 0; i < 200; i++) world.step();
        world.settle();
        assert.equal(world.waiting, 0);
      }),
      { numRuns: 400 },
    );
  });
});
