import { delay, systemClock } from '../../common/clock.js';
import type { Prng } from '../../common/prng.js';
import { Histories } from '../histories/histories.js';
import type { Verdict } from '../histories/judge.js';
import { chooseFault, FAULTS, type FaultKind, type Scenario } from './faults.js';
import type { StressSession } from './session.js';

/** Programs on all clients use the same names and files under faults; what they saw must have an order. */

const ROUND_MS = 60_000;
const HEALTHY_TIMEOUT_MS = 180_000;
const SCENARIOS: readonly Scenario[] = ['kill', 'pause', 'cut'];
/** So many histories of a hundred may be too tangled to be decided. */
const UNDECIDED_MAX_PERCENT = 10;
/** Of ten faults so many are those of clients alone, which the nemesis does not have. */
const CLIENT_FAULTS_OF_TEN = 3;

/** @returns a line for each round */
export async function histories(
  session: StressSession,
  minutes: number,
  seed: number,
  prng: Prng,
): Promise<string[]> {
  const lines: string[] = [];
  const until = session.now() + minutes * 60_000;
  do {
    lines.push(await round(session, seed + lines.length, prng));
    session.say(lines.at(-1) as string);
  } while (session.now() < until && session.run.failures.length === 0);
  return lines;
}

async function round(session: StressSession, seed: number, prng: Prng): Promise<string> {
  const { lab } = session;
  const running = new Histories({
    mounts: new Map(lab.clients.map((client) => [client, lab.mountPoint(client)])),
    seed,
  });
  const until = session.now() + ROUND_MS;
  const kinds = FAULTS.filter(({ scenario }) => SCENARIOS.includes(scenario));
  let faults = 0;
  try {
    await running.start();
    do {
      await running.progress();
      if (prng.int(10) < CLIENT_FAULTS_OF_TEN) await clientFault(session, running, prng);
      else await serverFault(session, chooseFault(kinds, prng), prng);
      faults++;
      await running.progress();
    } while (session.now() < until);
    const verdict = await running.finish();
    for (const offence of running.offences.slice(0, 5)) session.fail(offence);
    judged(session, verdict);
    const { histories: all, operations, overlapping, unknown, undecided } = verdict;
    return `seed ${seed}: ${faults} faults, ${all} histories of ${operations} operations (${overlapping} beside those of another mount, ${unknown} of open outcome), ${undecided.length} undecided, ${verdict.violations.length} without an order`;
  } finally {
    await running.end();
  }
}

function judged(
  session: StressSession,
  { violations, undecided, histories: all, overlapping }: Verdict,
): void {
  for (const violation of violations) session.fail(violation);
  if (undecided.length * 100 > all * UNDECIDED_MAX_PERCENT)
    session.fail(`${undecided.length} of ${all} histories are undecided`);
  if (overlapping === 0) session.fail('proved nothing: no two mounts were at work at the same time');
}

async function serverFault(session: StressSession, kind: FaultKind, prng: Prng): Promise<void> {
  const { lab } = session;
  const [min, max] = kind.holdS;
  const injected = await kind.begin(lab, prng);
  const holdMs = (min + prng.float() * (max - min)) * 1000;
  session.say(`${kind.name} (${injected.victim}) for ${(holdMs / 1000).toFixed(1)} s`);
  await delay(systemClock, holdMs);
  await injected.undo();
  await lab.waitHealthy(HEALTHY_TIMEOUT_MS);
}

/** kill -9 of one program, or of a mount under its programs; then it is mounted again. */
async function clientFault(session: StressSession, running: Histories, prng: Prng): Promise<void> {
  const { lab } = session;
  const victim = lab.clients[prng.int(lab.clients.length)] as string;
  if (prng.int(2) === 0) {
    session.say(`kill a program (${victim})`);
    await running.killProgram(victim);
    return;
  }
  const unknown = await running.killMount(victim, () => lab.kill(victim));
  session.say(`kill mount (${victim}): the outcome of ${unknown} operations is open`);
  await lab.mount(victim);
  running.revive(victim);
}
