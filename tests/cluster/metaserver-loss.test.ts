import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ClusterStatus } from '../../cli/cluster-status.js';
import { holdfast, nodeScript, sh } from '../lab/command.js';
import { temporaryDirectory } from '../lab/directories.js';
import { eventually } from '../lab/eventually.js';
import { TestCluster } from '../lab/test-cluster.js';
import { CHECK_RECORDS, SYNCED_WRITER } from './support/synced-writer.js';

/** Files whose names and contents are compared in the end: more than one page of metadata. */
const MAKE_FILES = `
  for (let i = 0; i < 300; i++) fs.writeFileSync(path.join(args[0], 'file-' + i), 'content of ' + i);`;
const CHECK_FILES = `
  const names = fs.readdirSync(args[0]); if (names.length !== 300) throw new Error(names.length + ' files');
  for (let i = 0; i < 300; i++) {
    const text = fs.readFileSync(path.join(args[0], 'file-' + i), 'utf8');
    if (text !== 'content of ' + i) throw new Error('file ' + i + ' holds ' + text);
  }`;

describe('a metaserver whose disk is lost or damaged, under a mount', function () {
  this.timeout(300_000);
  const cluster = new TestCluster('metaserver-loss');
  let local: string;
  let stopFile: string;
  let countFile: string;
  let writer: Promise<string>;

  before(async () => {
    local = temporaryDirectory('metaserver-loss-local');
    stopFile = join(local, 'stop');
    countFile = join(local, 'count');
    await cluster.up();
    await cluster.waitHealthy();
    await sh('mkdir files', { cwd: cluster.dir });
    await nodeScript(MAKE_FILES, [join(cluster.dir, 'files')]);
    // Works through everything that follows.
    writer = nodeScript(SYNCED_WRITER, [join(cluster.dir, 'records'), stopFile, countFile]);
    writer.catch(() => undefined);
    await progress();
  });
  after(async () => {
    writeFileSync(stopFile, '');
    await writer.catch(() => undefined);
    await cluster.destroy();
    rmSync(local, { recursive: true, force: true });
  });

  const written = (): number => (existsSync(countFile) ? Number(readFileSync(countFile, 'utf8')) : 0);

  /** Waits until more was acknowledged. */
  async function progress(): Promise<void> {
    const before = written();
    await eventually('the writer goes on', () => written() > before + 20);
  }

  async function stop(name: string): Promise<void> {
    assert.equal((await holdfast(['stop', name, '--data', cluster.data, '--kill'])).code, 0);
  }

  async function start(name: string): Promise<void> {
    assert.equal((await holdfast(['start', name, '--data', cluster.data])).code, 0);
  }

  async function someFollower(): Promise<string> {
    const { leader, metaservers } = await cluster.waitHealthy();
    return metaservers.find(({ id }) => id !== leader?.id)?.name as string;
  }

  async function leaderName(): Promise<string> {
    const { leader } = await cluster.waitHealthy();
    return `metaserver-${leader?.id}`;
  }

  const dataOf = (name: string): string => join(cluster.data, name);
  const uuidOf = (name: string): string =>
    (JSON.parse(readFileSync(join(dataOf(name), 'format.json'), 'utf8')) as { diskUuid: string }).diskUuid;

  /** Each of the two others dies in turn: what is left decides with the vote of this one, from what it has. */
  async function provesItself(name: string): Promise<void> {
    const others = (await cluster.waitHealthy()).metaservers.filter((one) => one.name !== name);
    for (const other of others) {
      await stop(other.name);
      await progress();
      await nodeScript(CHECK_FILES, [join(cluster.dir, 'files')]);
      await start(other.name);
      await cluster.waitHealthy();
    }
  }

  it('comes back with an empty disk and is filled and votes again, by itself', async () => {
    const victim = await someFollower();
    const before = uuidOf(victim);
    await stop(victim);
    rmSync(dataOf(victim), { recursive: true });
    await start(victim);
    await cluster.waitHealthy();
    await progress();
    assert.notEqual(uuidOf(victim), before);
    await provesItself(victim);
  });

  it('comes back with an empty disk after it led', async () => {
    const victim = await leaderName();
    await stop(victim);
    rmSync(dataOf(victim), { recursive: true });
    await progress();
    await start(victim);
    await cluster.waitHealthy();
    await progress();
  });

  /** Damages the data of a stopped server, and waits until it votes again with what the others gave it. */
  async function survivesDamage(victim: string, damage: () => void, reason: RegExp): Promise<ClusterStatus> {
    const before = uuidOf(victim);
    await stop(victim);
    damage();
    await start(victim);
    const status = await cluster.waitHealthy();
    assert.notEqual(uuidOf(victim), before);
    const note = status.notes.find((line) => line.startsWith(`${victim}: damaged data was set aside`));
    assert.match(note ?? '', reason);
    assert.ok(existsSync(join(dataOf(victim), 'damaged', 'format.json')), 'the evidence is kept');
    assert.match(cluster.logs(200), /"msg":"damaged data is set aside/);
    await progress();
    return status;
  }

  function flip(file: string, offset: number): void {
    const bytes = readFileSync(file);
    bytes[offset] = (bytes[offset] as number) ^ 0x10;
    writeFileSync(file, bytes);
  }

  it('finds a flipped bit amid its log and does not go on from it', async () => {
    const victim = await someFollower();
    const log = join(dataOf(victim), 'log');
    const segment = (): string => join(log, readdirSync(log).sort()[0] as string);
    await eventually('the log has a middle', () => statSync(segment()).size > 20_000);
    await survivesDamage(victim, () => flip(segment(), 8_000), /bad record/);
  });

  it('finds a flipped bit in its state and does not serve it', async () => {
    const victim = await someFollower();
    const file = join(dataOf(victim), 'state.mdb');
    const content = Buffer.from('file-123');
    await eventually('the state is written', () => readFileSync(file).includes(content));
    const damage = (): void => {
      const bytes = readFileSync(file);
      for (let at = bytes.indexOf(content); at >= 0; at = bytes.indexOf(content, at + 1)) flip(file, at + 2);
    };
    await survivesDamage(victim, damage, /checksum|out of order|records where/);
  });

  it('has lost nothing in the end', async () => {
    writeFileSync(stopFile, '');
    const acknowledged = Number(await writer);
    const cold = await cluster.mount('cold');
    await nodeScript(CHECK_RECORDS, [join(cold, 'records'), String(acknowledged)]);
    await nodeScript(CHECK_FILES, [join(cold, 'files')]);
    assert.equal((await cluster.umount(cold)).code, 0);
  });
});
