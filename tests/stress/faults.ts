import { delay, systemClock } from '../../common/clock.js';
import type { Prng } from '../../common/prng.js';
import type { Lab } from '../lab/lab.js';

/** What the nemesis can do to a cluster: each fault begins, holds for a while, and is undone. */

export type Scenario = 'kill' | 'pause' | 'cut' | 'slow' | 'disk' | 'wipe' | 'power-cut';

export interface FaultKind {
  name: string;
  scenario: Scenario;
  /** How long it holds, seconds. */
  holdS: readonly [min: number, max: number];
  /** How often it is taken, in relation to the others. */
  weight: number;
  /** @returns whom it hits, for the report */
  begin(lab: Lab, prng: Prng): Promise<Injected>;
}

export interface Injected {
  victim: string;
  /** Ends the fault; the cluster has everything that it needs to become healthy. */
  undo(): Promise<void>;
  /** The victim lost its disk: what it holds afterwards was copied. */
  wiped?: boolean;
}

const SLOW_RUN_MS = 40;
const SLOW_PAUSE_MS = 120;
const SLOW_MBIT = 20;
const SLOW_DISK_HUNG_MS = 120;
const SLOW_DISK_FREE_MS = 40;

export function pick<T>(prng: Prng, list: readonly T[]): T {
  return list[prng.int(list.length)] as T;
}

async function follower(lab: Lab, prng: Prng): Promise<string> {
  const leader = await lab.leader();
  return pick(
    prng,
    lab.metaservers.filter((one) => one !== leader),
  );
}

type Choose = (lab: Lab, prng: Prng) => Promise<string>;
const CHUNKSERVER: Choose = async (lab, prng) => pick(prng, lab.chunkservers);
const LEADER: Choose = (lab) => lab.leader();
const FOLLOWER: Choose = follower;
const CLIENT: Choose = async (lab, prng) => pick(prng, lab.clients);

function killed(choose: Choose): FaultKind['begin'] {
  return async (lab, prng) => {
    const victim = await choose(lab, prng);
    await lab.kill(victim);
    return { victim, undo: async () => lab.start(victim) };
  };
}

function paused(choose: Choose): FaultKind['begin'] {
  return async (lab, prng) => {
    const victim = await choose(lab, prng);
    lab.pause(victim);
    return { victim, undo: async () => lab.resume(victim) };
  };
}

function cut(choose: Choose, apply: (lab: Lab, victim: string) => void): FaultKind['begin'] {
  return async (lab, prng) => {
    const victim = await choose(lab, prng);
    apply(lab, victim);
    return { victim, undo: async () => lab.network.heal() };
  };
}

function wiped(choose: Choose): FaultKind['begin'] {
  return async (lab, prng) => {
    const victim = await choose(lab, prng);
    await lab.kill(victim);
    lab.wipe(victim);
    return { victim, undo: async () => lab.start(victim), wiped: true };
  };
}

/** Runs a process for a part of the time only, as on a machine that others use up. */
function slowed(choose: Choose): FaultKind['begin'] {
  return async (lab, prng) => {
    const victim = await choose(lab, prng);
    const stop = lab.stutter(victim, SLOW_RUN_MS, SLOW_PAUSE_MS);
    return { victim, undo: async () => stop() };
  };
}

function powerCut(choose: Choose): FaultKind['begin'] {
  return async (lab, prng) => {
    const victim = await choose(lab, prng);
    await lab.kill(victim);
    lab.disk(victim).powerCut();
    return { victim, undo: async () => lab.start(victim) };
  };
}

/** The disk answers nothing. */
function hungDisk(choose: Choose): FaultKind['begin'] {
  return async (lab, prng) => {
    const victim = await choose(lab, prng);
    await lab.disk(victim).freeze();
    return { victim, undo: async () => lab.disk(victim).thaw() };
  };
}

/** The disk answers for a part of the time only. */
function slowDisk(choose: Choose): FaultKind['begin'] {
  return async (lab, prng) => {
    const victim = await choose(lab, prng);
    const disk = lab.disk(victim);
    let slow = true;
    const turns = (async () => {
      while (slow) {
        await disk.freeze();
        await delay(systemClock, SLOW_DISK_HUNG_MS);
        disk.thaw();
        await delay(systemClock, SLOW_DISK_FREE_MS);
      }
    })();
    turns.catch(() => undefined);
    return {
      victim,
      undo: async () => {
        slow = false;
        await turns;
      },
    };
  };
}

/** Others take the whole disk of a metaserver, which has to end and is started again when there is room. */
function fullDisk(choose: Choose): FaultKind['begin'] {
  return async (lab, prng) => {
    const victim = await choose(lab, prng);
    lab.disk(victim).fill(0);
    return {
      victim,
      undo: async () => {
        lab.disk(victim).free();
        if (lab.alive(victim)) await lab.kill(victim);
        lab.start(victim);
      },
    };
  };
}

const SHORT = [1, 4] as const;
const MEDIUM = [3, 8] as const;
const LONG = [30, 31] as const;
/** The session lives on: what the client had not written yet must not be lost. */
const LEASES_OVER = [12, 20] as const;

export const FAULTS: readonly FaultKind[] = [
  { name: 'kill chunkserver', scenario: 'kill', holdS: SHORT, weight: 3, begin: killed(CHUNKSERVER) },
  { name: 'kill leader', scenario: 'kill', holdS: SHORT, weight: 3, begin: killed(LEADER) },
  { name: 'kill follower', scenario: 'kill', holdS: SHORT, weight: 1, begin: killed(FOLLOWER) },
  {
    name: 'kill all servers',
    scenario: 'kill',
    holdS: [1, 2],
    weight: 1,
    begin: async (lab) => {
      await lab.killAll();
      return { victim: 'all', undo: async () => lab.startAll() };
    },
  },
  {
    name: 'restart leader',
    scenario: 'kill',
    holdS: [1, 2],
    weight: 1,
    begin: async (lab) => {
      const victim = await lab.leader();
      await lab.stop(victim);
      return { victim, undo: async () => lab.start(victim) };
    },
  },
  { name: 'stop chunkserver', scenario: 'pause', holdS: MEDIUM, weight: 2, begin: paused(CHUNKSERVER) },
  { name: 'stop leader', scenario: 'pause', holdS: MEDIUM, weight: 2, begin: paused(LEADER) },
  { name: 'stop follower', scenario: 'pause', holdS: MEDIUM, weight: 1, begin: paused(FOLLOWER) },
  { name: 'stop client', scenario: 'pause', holdS: MEDIUM, weight: 1, begin: paused(CLIENT) },
  {
    name: 'stop chunkserver for 30 s',
    scenario: 'pause',
    holdS: LONG,
    weight: 0.3,
    begin: paused(CHUNKSERVER),
  },
  { name: 'stop leader for 30 s', scenario: 'pause', holdS: LONG, weight: 0.3, begin: paused(LEADER) },
  { name: 'stop follower for 30 s', scenario: 'pause', holdS: LONG, weight: 0.3, begin: paused(FOLLOWER) },
  {
    name: 'stop client for longer than its leases',
    scenario: 'pause',
    holdS: LEASES_OVER,
    weight: 0.3,
    begin: paused(CLIENT),
  },
  {
    name: 'cut chunkserver off',
    scenario: 'cut',
    holdS: MEDIUM,
    weight: 2,
    begin: cut(CHUNKSERVER, (lab, one) => lab.network.part([one], [...lab.servers, ...lab.clients])),
  },
  {
    name: 'cut chunkserver from metaservers',
    scenario: 'cut',
    holdS: MEDIUM,
    weight: 1,
    begin: cut(CHUNKSERVER, (lab, one) => lab.network.part([one], lab.metaservers)),
  },
  {
    name: 'cut chunkserver from others of its kind',
    scenario: 'cut',
    holdS: MEDIUM,
    weight: 1,
    begin: cut(CHUNKSERVER, (lab, one) => lab.network.part([one], lab.chunkservers)),
  },
  {
    name: 'chunkserver not heard by metaservers',
    scenario: 'cut',
    holdS: MEDIUM,
    weight: 1,
    begin: cut(CHUNKSERVER, (lab, one) => lab.network.cut([one], lab.metaservers)),
  },
  {
    name: 'chunkserver does not hear metaservers',
    scenario: 'cut',
    holdS: MEDIUM,
    weight: 1,
    begin: cut(CHUNKSERVER, (lab, one) => lab.network.cut(lab.metaservers, [one])),
  },
  {
    name: 'cut leader from followers',
    scenario: 'cut',
    holdS: MEDIUM,
    weight: 2,
    begin: cut(LEADER, (lab, one) => lab.network.part([one], lab.metaservers)),
  },
  {
    name: 'cut leader off',
    scenario: 'cut',
    holdS: MEDIUM,
    weight: 1,
    begin: cut(LEADER, (lab, one) => lab.network.part([one], [...lab.servers, ...lab.clients])),
  },
  {
    name: 'leader not heard by followers',
    scenario: 'cut',
    holdS: MEDIUM,
    weight: 1,
    begin: cut(LEADER, (lab, one) => lab.network.cut([one], lab.metaservers)),
  },
  {
    name: 'leader does not hear followers',
    scenario: 'cut',
    holdS: MEDIUM,
    weight: 1,
    begin: cut(LEADER, (lab, one) => lab.network.cut(lab.metaservers, [one])),
  },
  {
    name: 'cut client off',
    scenario: 'cut',
    holdS: MEDIUM,
    weight: 1,
    begin: cut(CLIENT, (lab, one) => lab.network.part([one], lab.servers)),
  },
  { name: 'slow chunkserver', scenario: 'slow', holdS: MEDIUM, weight: 1, begin: slowed(CHUNKSERVER) },
  { name: 'slow leader', scenario: 'slow', holdS: MEDIUM, weight: 1, begin: slowed(LEADER) },
  {
    name: 'slow network of a chunkserver',
    scenario: 'slow',
    holdS: MEDIUM,
    weight: 1,
    begin: async (lab, prng) => {
      const victim = pick(prng, lab.chunkservers);
      lab.network.limit(victim, SLOW_MBIT);
      return { victim, undo: async () => lab.network.limit(victim, undefined) };
    },
  },
  {
    name: 'slow disk of a chunkserver',
    scenario: 'disk',
    holdS: MEDIUM,
    weight: 1,
    begin: slowDisk(CHUNKSERVER),
  },
  { name: 'slow disk of the leader', scenario: 'disk', holdS: MEDIUM, weight: 1, begin: slowDisk(LEADER) },
  {
    name: 'disk of a chunkserver hangs',
    scenario: 'disk',
    holdS: MEDIUM,
    weight: 1,
    begin: hungDisk(CHUNKSERVER),
  },
  { name: 'disk of the leader hangs', scenario: 'disk', holdS: MEDIUM, weight: 1, begin: hungDisk(LEADER) },
  {
    name: 'disk of a follower hangs',
    scenario: 'disk',
    holdS: MEDIUM,
    weight: 0.5,
    begin: hungDisk(FOLLOWER),
  },
  { name: 'full disk of the leader', scenario: 'disk', holdS: MEDIUM, weight: 1, begin: fullDisk(LEADER) },
  {
    name: 'full disk of a follower',
    scenario: 'disk',
    holdS: MEDIUM,
    weight: 0.5,
    begin: fullDisk(FOLLOWER),
  },
  { name: 'wipe chunkserver', scenario: 'wipe', holdS: SHORT, weight: 2, begin: wiped(CHUNKSERVER) },
  { name: 'wipe follower', scenario: 'wipe', holdS: SHORT, weight: 1, begin: wiped(FOLLOWER) },
  { name: 'wipe leader', scenario: 'wipe', holdS: SHORT, weight: 1, begin: wiped(LEADER) },
  {
    name: 'power cut of a chunkserver',
    scenario: 'power-cut',
    holdS: SHORT,
    weight: 1,
    begin: powerCut(CHUNKSERVER),
  },
  {
    name: 'power cut of the leader',
    scenario: 'power-cut',
    holdS: SHORT,
    weight: 1,
    begin: powerCut(LEADER),
  },
  {
    name: 'power cut of all servers',
    scenario: 'power-cut',
    holdS: [1, 2],
    weight: 1,
    begin: async (lab) => {
      await lab.killAll();
      for (const server of lab.servers) lab.disk(server).powerCut();
      return { victim: 'all', undo: async () => lab.startAll() };
    },
  },
];

/** One of the kinds, by weight. */
export function chooseFault(kinds: readonly FaultKind[], prng: Prng): FaultKind {
  let left = prng.float() * kinds.reduce((sum, kind) => sum + kind.weight, 0);
  for (const kind of kinds) {
    left -= kind.weight;
    if (left < 0) return kind;
  }
  return kinds.at(-1) as FaultKind;
}
