import assert from 'node:assert/strict';
import { ratioChart } from './chart.js';
import { isMet, verdicts } from './goals.js';
import { markdown } from './markdown.js';
import { type BenchRun, median, type Pass, ratio, rowsOf, systemsOf } from './report.js';

const pass = (system: string, rate: number, milliseconds: number): Pass => ({
  system,
  figures: [
    { workload: 'create', value: rate, unit: '/s', higherIsBetter: true },
    { workload: 'ls', value: milliseconds, unit: 'ms', higherIsBetter: false },
  ],
  skipped: [],
});

function sample(): BenchRun {
  return {
    machine: '2 cores',
    cores: 2,
    revision: '0123abc',
    command: 'npm run bench -- --passes 3',
    warmUpSeconds: 20,
    passes: [pass('ours', 100, 10), pass('theirs', 50, 40), pass('ours', 300, 20), pass('ours', 200, 30)],
    memory: [{ name: 'mount', before: 1024 * 1024, after: 2 * 1024 * 1024 }],
    cpu: [
      {
        ...{ workload: 'create', wallMs: 2000, machineMs: 3400 },
        cpuMs: { mount: 500, metaserver: 1000, chunkserver: 1500 },
      },
    ],
    absent: ['sshfs (apt install sshfs)'],
  };
}

describe('the benchmark report', () => {
  it('takes the median of odd and even numbers of passes', () => {
    assert.equal(median([3, 1, 2]), 2);
    assert.equal(median([4, 1, 2, 3]), 2.5);
  });

  it('has a row a workload with the median and spread of each system', () => {
    const [create] = rowsOf(sample());
    assert.deepEqual(create?.cells.ours, { median: 200, spread: 1, passes: 3 });
    assert.deepEqual(create?.cells.theirs, { median: 50, spread: 0, passes: 1 });
    assert.deepEqual(systemsOf(sample()), ['ours', 'theirs']);
  });

  it('gives ratios above 1 where the first is better, for rates and for times', () => {
    const [create, list] = rowsOf(sample());
    assert.equal(create && ratio(create, 'ours', 'theirs'), 4);
    assert.equal(list && ratio(list, 'ours', 'theirs'), 2);
    assert.equal(create && ratio(create, 'ours', 'absent'), undefined);
  });

  it('says when nothing was warmed up', () => {
    assert.ok(markdown({ ...sample(), warmUpSeconds: 0 }).includes('No system was warmed up'));
  });

  it('names the command, what was not installed and what could not be measured', () => {
    const run = sample();
    run.passes[0]?.skipped.push({ workload: 'rename', reason: 'EIO' });
    const text = markdown(run);
    for (const expected of [
      'worked for 20 s on large and small files, which is not measured',
      'npm run bench -- --passes 3',
      'sshfs (apt install sshfs)',
      'ours: rename: EIO',
      '| 4.00 |',
    ]) {
      assert.ok(text.includes(expected), expected);
    }
  });

  it('says how many cores each kind of process used in a row', () => {
    assert.match(markdown(sample()), /\| create \| 2\.0 s \| 0\.25 \| 0\.50 \| 0\.75 \| 1\.50 \| 1\.70 \|/);
  });

  it('holds sequential writes against a third of the disk, or what the cores allow where they are busy', () => {
    const workload = 'sequential write 1 MiB + fsync';
    const of = (rate: number, machineMs: number) => {
      const run = sample();
      const figures = (value: number) => [{ workload, value, unit: 'MB/s', higherIsBetter: true }];
      run.passes = [
        { system: 'ours', figures: figures(rate), skipped: [] },
        { system: 'local disk', figures: figures(900), skipped: [] },
      ];
      run.cpu = [{ workload, wallMs: 1000, machineMs, cpuMs: {} }];
      const one = verdicts(run).find(({ goal }) => goal.startsWith('of a third'));
      assert.ok(one);
      return [one.value, isMet(one), one.goal];
    };
    const goal = (disk: string, cores: string) =>
      `of a third of the local disk's rate (${disk}), or of what the cores allow (${cores})`;
    assert.deepEqual(of(150, 1000), [0.5, false, goal('0.50', '0.50')]);
    assert.deepEqual(of(150, 1800), [0.9, true, goal('0.50', '0.90')]);
    assert.deepEqual(of(450, 1000), [1.5, true, goal('1.50', '0.50')]);
  });

  it('holds every row against the best peer with copies, and says what was not measured', () => {
    const run = sample();
    const figure = (workload: string, value: number) => ({
      workload,
      value,
      unit: '/s',
      higherIsBetter: true,
    });
    const create = 'create + write 4 KiB + close';
    run.passes = [
      { system: 'ours', figures: [figure(create, 600), figure('rename', 50)], skipped: [] },
      { system: 'MooseFS', figures: [figure(create, 250), figure('rename', 40)], skipped: [] },
      { system: 'GlusterFS', figures: [figure(create, 100), figure('rename', 60)], skipped: [] },
    ];
    const of = (workload: string, goal: string) =>
      verdicts(run).find((one) => one.workload === workload && one.goal.includes(goal));
    const created = of(create, 'peer');
    assert.ok(created);
    assert.deepEqual([created.value, created.wanted, isMet(created)], [2.4, 3, false]);
    const renamed = of('rename', 'peer');
    assert.ok(renamed);
    assert.equal(renamed.value?.toFixed(3), '0.833');
    assert.equal(isMet({ ...renamed, value: 1 }), true);
    const through = of(create, 'pass-through');
    assert.ok(through && isMet(through) === undefined);
    assert.match(
      markdown(run),
      /\| create \+ write 4 KiB \+ close \| times the best .* 2\.40 \| \*\*not met\*\* \|/,
    );
  });

  it('counts the time of a synced write in syncs of the local disk', () => {
    const run = sample();
    const p50 = (system: string, value: number): Pass => ({
      system,
      figures: [{ workload: 'write 4 KiB + fsync, 1 writer, p50', value, unit: 'us', higherIsBetter: false }],
      skipped: [],
    });
    run.passes = [p50('ours', 390), p50('local disk', 100)];
    const one = verdicts(run).find(({ goal }) => goal.startsWith('p50'));
    assert.ok(one);
    assert.deepEqual([one.value, isMet(one), isMet({ ...one, value: 4.1 })], [3.9, true, false]);
  });

  it('draws a bar for each workload and system compared with', async () => {
    const svg = await ratioChart(sample());
    assert.match(svg, /^<svg/);
    const marks = svg.match(/mark-rect role-mark.*?<\/g>/g) ?? [];
    assert.equal(marks.join('').match(/<path/g)?.length, 2);
    for (const label of ['create', 'ls', 'theirs']) assert.ok(svg.includes(label), label);
  });
});
