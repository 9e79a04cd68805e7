import assert from 'node:assert/strict';
import { HoldfastError } from '../../../proto/errors.js';
import { ReplicaState } from '../../../proto/gen/cluster.js';
import { Checker } from './sim/checker.js';
import { CHUNKS, Files, INODES, SimClient } from './sim/client.js';
import type { SimServer } from './sim/server.js';
import { Simulation } from './sim/simulation.js';

/** More with HOLDFAST_SIM_SEEDS=n; one alone with HOLDFAST_SIM_SEED=n. */
const SEEDS = Number(process.env.HOLDFAST_SIM_SEEDS ?? 30);
const ONE = process.env.HOLDFAST_SIM_SEED;
const CHAOS_MS = 3500;
const AFTERMATH_MS = 6000;
const QUIET_MS = 12_000;
const IN_SYNC = ReplicaState.REPLICA_IN_SYNC;
/** Virtual time: silence is found, two reports, a new primary, a replica that catches up; delays at random. */
const WRITES_BLOCKED_MAX_MS = 5000;
const LAST_MS = CHAOS_MS + QUIET_MS + 20_000;

/** One random fault. */
function strike(sim: Simulation, powerCuts: boolean): void {
  const { prng, servers } = sim;
  const server = servers[prng.int(servers.length)]!;
  const other = servers[prng.int(servers.length)]!;
  // Most often the primary.
  const struck = prng.int(3) && sim.authority.primary ? sim.server(sim.authority.primary) : server;
  const back = (): void => {
    sim.clock.after(20 + sim.delay(400), () => !struck.up && struck.start());
  };
  switch (prng.int(15)) {
    case 0:
    case 1:
      if (!struck.up) return;
      if (powerCuts && prng.int(2)) struck.cutPower();
      else struck.kill();
      back();
      return;
    case 2: {
      const spared = prng.int(2);
      for (const each of servers) {
        if ((spared > 0 && prng.int(4) === 0) || !each.up) continue;
        if (powerCuts) each.cutPower();
        else each.kill();
        sim.clock.after(20 + sim.delay(400), () => !each.up && each.start());
      }
      return;
    }
    case 3:
      sim.pause(server, sim.delay(400));
      return;
    case 4:
      sim.pause(struck, 1500 + prng.float() * 2500);
      return;
    case 5:
      if (server !== other) sim.disconnect(server, other, false, 0);
      return;
    case 6:
      if (server !== other) sim.disconnect(server, other, true, prng.float() * 2500);
      return;
    case 7:
      sim.isolate(struck, prng.float() * 3000, prng.int(2) === 0);
      return;
    case 8:
    case 9:
      wipe(sim, struck, powerCuts);
      return;
    case 10:
      sim.seclude(struck, prng.float() * 5000);
      return;
    case 11:
    case 12:
    case 13:
      sim.authority.drain(server.id, prng.int(3) > 0);
      return;
    default:
      sim.authority.fail();
  }
}

/**
 * A server dies and comes back with an empty disk, at once or after the others noticed, if the promise holds without what
 * it had. Another one may be counted on only while its disk is in it.
 * @param backwards what was read and never acknowledged may be lost with it
 */
function wipe(sim: Simulation, server: SimServer, backwards: boolean): void {
  if (!server.up) return;
  server.kill();
  sim.clock.after(sim.prng.int(2) ? sim.delay(40) : 400, () => {
    if (server.up) return;
    if (sim.authority.spares(server.id, (id) => sim.server(id).diskUuid, backwards)) {
      server.wipe();
      sim.wipes++;
    }
    server.start();
  });
}

/** Reads until it is answered, for a client may still have an old map. */
async function lastRead(
  sim: Simulation,
  read: () => Promise<void>,
  until: (at: number) => Promise<void>,
): Promise<void> {
  let state: 'wanted' | 'asked' | 'done' = 'wanted';
  const refused = (error: Error): void => {
    if (!(error instanceof HoldfastError)) sim.fail(error);
    state = 'wanted';
  };
  const isDone = (): boolean => state === 'done';
  while (!isDone()) {
    if (state === 'wanted') {
      state = 'asked';
      read().then(() => {
        state = 'done';
      }, refused);
    }
    await until(sim.clock.now() + 50);
    assert.ok(sim.clock.now() < LAST_MS, 'the last reads are not answered');
  }
}

interface Outcome {
  checker: Checker;
  wipes: number;
  moves: number;
  unavailable: number;
  proven: number;
}

async function run(seed: number): Promise<Outcome> {
  const powerCuts = seed % 2 === 1;
  // With more servers than replicas, the group moves.
  const servers = 3 + (seed % 3);
  const replicas = seed % 3 === 1 && seed % 4 < 2 ? 4 : 3;
  const sim = new Simulation(seed, { servers, replicas, minInSync: 1 + (seed % 2), powerCuts });
  const { clock } = sim;
  const checker = new Checker(!powerCuts);
  const files = new Files();
  const clients = [0, 1, 2].map(() => new SimClient(sim, files, checker, powerCuts));
  const strikeLater = (): void => {
    clock.after(50 + sim.delay(500), () => {
      if (clock.now() > CHAOS_MS) return;
      strike(sim, powerCuts);
      strikeLater();
    });
  };
  clock.after(300, strikeLater);
  const until = async (at: number): Promise<void> => {
    while (clock.now() < at && !sim.failure) await clock.run(Math.min(at, clock.now() + 50));
    if (sim.failure) throw sim.failure;
  };
  await until(CHAOS_MS);
  for (const server of sim.servers) {
    if (!server.up) server.start();
    sim.authority.drain(server.id, false);
  }
  const settled = (): boolean => {
    const group = sim.authority.map.pgs[0]!.replicas;
    const inSync = group.filter(({ state, leaving }) => state === ReplicaState.REPLICA_IN_SYNC && !leaving);
    return inSync.length === replicas && group.length === replicas;
  };
  const outcome = (unavailable: number): Outcome => ({
    ...{ checker, unavailable },
    ...{ wipes: sim.wipes, moves: sim.authority.moves },
    proven: sim.provenWrites,
  });
  await until(CHAOS_MS + 500);
  for (const client of clients) client.stopped = true;
  // The last faults go on for a while: pauses and cuts, and what is found of them by silence.
  await until(CHAOS_MS + AFTERMATH_MS);
  while (clock.now() < CHAOS_MS + QUIET_MS && !settled()) await until(clock.now() + 100);
  const { replicas: group } = sim.authority.map.pgs[0]!;
  if (sim.authority.primary === 0) {
    // The last in-sync disk went while the other one was being dropped: nothing is answered rather than anything wrong.
    const missed = group.find(({ wholeDisk }) => wholeDisk)!;
    assert.notEqual(missed.wholeDisk, sim.server(missed.server).diskUuid);
    return outcome(1);
  }
  assert.ok(settled(), `not all replicas in-sync: ${JSON.stringify(sim.authority.map.pgs[0])}`);
  for (let ino = 1; ino <= INODES; ino++) {
    for (let chunk = 0; chunk < CHUNKS; chunk++) {
      await lastRead(sim, () => clients[0]!.read(ino, chunk), until);
    }
  }
  await until(clock.now() + 500);
  const members = sim.authority.map.pgs[0]!.replicas.map(({ server }) => server);
  const [first, ...others] = members.map((id) => sim.server(id).store.dump(0));
  for (const other of others) assert.deepEqual(other, first, 'replicas differ after quiet');
  for (const { id, store } of sim.servers)
    if (!members.includes(id)) assert.deepEqual(store.pgs(), [], 'what left the group keeps nothing of it');
  return outcome(0);
}

describe('a placement group in simulation', function () {
  this.timeout(600_000);

  it('keeps what it acknowledged, through crashes, power cuts, pauses, cut connections, wiped disks and moves', async () => {
    const seeds = ONE ? [Number(ONE)] : Array.from({ length: SEEDS }, (_, i) => i + 1);
    let reads = 0;
    let acked = 0;
    let wipes = 0;
    let moves = 0;
    let unavailable = 0;
    let proven = 0;
    for (const seed of seeds) {
      try {
        const { checker, ...counts } = await run(seed);
        wipes += counts.wipes;
        moves += counts.moves;
        unavailable += counts.unavailable;
        proven += counts.proven;
        reads += checker.reads;
        acked += checker.acked;
      } catch (error) {
        throw new Error(`HOLDFAST_SIM_SEED=${seed}: ${(error as Error).message}`, { cause: error });
      }
    }
    // The faults must not have kept the clients from working.
    assert.ok(acked > seeds.length * 20, `${acked} acknowledged writes`);
    assert.ok(reads > seeds.length * 100, `${reads} reads`);
    if (ONE) return;
    assert.ok(wipes > seeds.length / 4, `${wipes} disks wiped`);
    assert.ok(unavailable <= seeds.length / 50, `${unavailable} without a primary`);
    assert.ok(moves > seeds.length / 6, `${moves} moves`);
    assert.ok(proven > seeds.length, `${proven} writes proven by a later SYNC`);
  });

  /** Three servers, and a client that does what it is told. */
  function still(seed: number): {
    sim: Simulation;
    client: SimClient;
    finished: <T>(running: Promise<T>) => Promise<T>;
    wait: (ms: number) => Promise<void>;
  } {
    const sim = new Simulation(seed, { servers: 3, replicas: 3, minInSync: 2, powerCuts: true });
    const client = new SimClient(sim, new Files(), new Checker(false), true);
    client.stopped = true;
    const finished = async <T>(running: Promise<T>): Promise<T> => {
      let done = false;
      const end = (): void => {
        done = true;
      };
      running.then(end, end);
      while (!done && !sim.failure) await sim.clock.run(sim.clock.now() + 20);
      if (sim.failure) throw sim.failure;
      return running;
    };
    const wait = (ms: number): Promise<void> => sim.clock.run(sim.clock.now() + ms);
    return { sim, client, finished, wait };
  }

  /** One write that is not synced, a disaster for the servers that it names, a SYNC. */
  async function syncAfter(
    seed: number,
    disaster: (sim: Simulation) => SimServer[],
  ): Promise<{ vouched: boolean; there: boolean }> {
    const { sim, client, finished, wait } = still(seed);
    await wait(1500);
    await finished(client.writeOnce(41, true));
    const { written } = await finished(client.writeOnce(42, false));
    for (const server of disaster(sim)) sim.clock.after(20 + sim.delay(300), () => server.start());
    await wait(50);
    const vouched = await finished(client.vouchedFor(written));
    const value = await finished(client.readOnce());
    assert.ok(value === 42 || value === 41, `read ${value}`);
    return { vouched, there: value === 42 };
  }

  const SOME_SEEDS = Array.from({ length: 12 }, (_, i) => 100 + i);

  it('tells who syncs an acknowledged write that the power of all replicas took it', async () => {
    let lost = 0;
    for (const seed of SOME_SEEDS) {
      const { vouched, there } = await syncAfter(seed, ({ servers }) => {
        for (const server of servers) server.cutPower(seed % 3 === 0 ? undefined : 0);
        return servers;
      });
      assert.equal(vouched, there, `seed ${seed}`);
      if (!there) lost++;
    }
    assert.ok(lost > 0 && lost < SOME_SEEDS.length, `${lost} lost`);
  });

  it('vouches for an acknowledged write when all replicas are killed, or one keeps its power', async () => {
    for (const seed of SOME_SEEDS) {
      const { vouched, there } = await syncAfter(seed, ({ servers }) => {
        const spared = seed % 4;
        for (const server of servers) {
          if (spared === 0) server.kill();
          else if (server.id !== spared) server.cutPower(0);
        }
        return servers.filter(({ id }) => id !== spared);
      });
      assert.deepEqual({ seed, vouched, there }, { seed, vouched: true, there: true });
    }
  });

  it('goes on within seconds when its primary is cut off from the other replicas alone', async () => {
    for (const seed of SOME_SEEDS) {
      const { sim, client, finished, wait } = still(seed);
      await wait(1500);
      await finished(client.writeOnce(41, true));
      const former = sim.authority.primary;
      const cutAt = sim.clock.now();
      sim.seclude(sim.server(former), 30_000);
      const written = client.writeOnce(42, true);
      const mayWrite = (): boolean => {
        const { replicas } = sim.authority.map.pgs[0]!;
        const others = replicas.filter(({ server, state }) => server !== former && state === IN_SYNC);
        return sim.authority.primary !== former && others.length === 2;
      };
      while (!mayWrite() && sim.clock.now() < cutAt + WRITES_BLOCKED_MAX_MS) await wait(20);
      assert.ok(mayWrite(), `seed ${seed}: ${JSON.stringify(sim.authority.map.pgs[0])}`);
      await finished(written);
      assert.equal(await finished(client.readOnce()), 42);
      await wait(40_000);
      const states = sim.authority.map.pgs[0]!.replicas.map(({ state }) => state);
      assert.ok(states.every((state) => state === IN_SYNC));
      assert.equal(await finished(client.readOnce()), 42);
    }
  });
});
