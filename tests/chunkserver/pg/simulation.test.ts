import assert from 'node:assert/strict';
import { HoldfastError } from '../../../proto/errors.js';
import { ReplicaState } from '../../../proto/gen/cluster.js';
import { Checker } from './sim/checker.js';
import { CHUNKS, Files, INODES, SimClient } from './sim/client.js';
import { Simulation } from './sim/simulation.js';

/** More with HOLDFAST_SIM_SEEDS=n; one alone with HOLDFAST_SIM_SEED=n. */
const SEEDS = Number(process.env.HOLDFAST_SIM_SEEDS ?? 30);
const ONE = process.env.HOLDFAST_SIM_SEED;
const CHAOS_MS = 3500;
const AFTERMATH_MS = 6000;
const QUIET_MS = 12_000;
const LAST_MS = CHAOS_MS + QUIET_MS + 20_000;

/** One random fault. */
function strike(sim: Simulation, powerCuts: boolean): void {
  const { prng, servers } = sim;
  const server = servers[prng.int(servers.length)]!;
  const other = servers[prng.int(servers.length)]!;
  // Most often the primary.
  const struck = prng.int(3) ? sim.server(sim.authority.primary) : server;
  const back = (): void => {
    sim.clock.after(20 + sim.delay(400), () => !struck.up && struck.start());
  };
  switch (prng.int(10)) {
    case 0:
    case 1:
      if (!struck.up) return;
      if (powerCuts && prng.int(2)) struck.cutPower();
      else struck.kill();
      back();
      return;
    case 2:
      for (const each of servers) {
        if (prng.int(4) === 0 || !each.up) continue;
        if (powerCuts) each.cutPower();
        else each.kill();
        sim.clock.after(20 + sim.delay(400), () => !each.up && each.start());
      }
      return;
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
      if (!server.up) return;
      server.kill();
      // An empty disk comes back, once the map counts on this one no more.
      sim.clock.after(400, () => {
        const replica = sim.authority.map.pgs[0]!.replicas.find(({ server: id }) => id === server.id);
        if (server.up) return;
        if (replica?.state !== ReplicaState.REPLICA_IN_SYNC) server.wipe();
        server.start();
      });
      return;
    default:
      sim.authority.fail();
  }
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

async function run(seed: number): Promise<Checker> {
  const powerCuts = seed % 2 === 1;
  const servers = 3 + (seed % 3 === 0 ? 1 : 0);
  const sim = new Simulation(seed, { servers, replicas: servers, minInSync: 1 + (seed % 2), powerCuts });
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
  for (const server of sim.servers) if (!server.up) server.start();
  const settled = (): boolean =>
    sim.authority.map.pgs[0]!.replicas.every(({ state }) => state === ReplicaState.REPLICA_IN_SYNC);
  await until(CHAOS_MS + 500);
  for (const client of clients) client.stopped = true;
  // The last faults go on for a while: pauses and cuts, and what is found of them by silence.
  await until(CHAOS_MS + AFTERMATH_MS);
  while (clock.now() < CHAOS_MS + QUIET_MS && !settled()) await until(clock.now() + 100);
  assert.ok(settled(), `not all replicas in-sync: ${JSON.stringify(sim.authority.map.pgs[0])}`);
  for (let ino = 1; ino <= INODES; ino++) {
    for (let chunk = 0; chunk < CHUNKS; chunk++) {
      await lastRead(sim, () => clients[0]!.read(ino, chunk), until);
    }
  }
  const [first, ...others] = sim.servers.map((server) => server.store.dump(0));
  for (const other of others) assert.deepEqual(other, first, 'replicas differ after quiet');
  return checker;
}

describe('a placement group in simulation', function () {
  this.timeout(600_000);

  it('keeps what it acknowledged, through crashes, power cuts, pauses and cut connections', async () => {
    const seeds = ONE ? [Number(ONE)] : Array.from({ length: SEEDS }, (_, i) => i + 1);
    let reads = 0;
    let acked = 0;
    for (const seed of seeds) {
      try {
        const checker = await run(seed);
        reads += checker.reads;
        acked += checker.acked;
      } catch (error) {
        throw new Error(`HOLDFAST_SIM_SEED=${seed}: ${(error as Error).message}`, { cause: error });
      }
    }
    // The faults must not have kept the clients from working.
    assert.ok(acked > seeds.length * 20, `${acked} acknowledged writes`);
    assert.ok(reads > seeds.length * 100, `${reads} reads`);
  });
});
