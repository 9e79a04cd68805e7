import assert from 'node:assert/strict';
import { ratioChart } from './chart.js';
import { type BenchRun, markdown, median, type Pass, ratio, rowsOf, systemsOf } from './report.js';

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
    command: 'npm run bench -- --passes 3',
    passes: [pass('ours', 100, 10), pass('theirs', 50, 40), pass('ours', 300, 20), pass('ours', 200, 30)],
    memory: [{ name: 'mount', before: 1024 * 1024, after: 2 * 1024 * 1024 }],
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

  it('names the command, what was not installed and what could not be measured', () => {
    const run = sample();
    run.passes[0]?.skipped.push({ workload: 'rename', reason: 'EIO' });
    const text = markdown(run);
    for (const expected of [
      'npm run bench -- --passes 3',
      'sshfs (apt install sshfs)',
      'ours: rename: EIO',
      '| 4.00 |',
    ]) {
      assert.ok(text.includes(expected), expected);
    }
  });

  it('draws a bar for each workload and system compared with', async () => {
    const svg = await ratioChart(sample());
    assert.match(svg, /^<svg/);
    const marks = svg.match(/mark-rect role-mark.*?<\/g>/g) ?? [];
    assert.equal(marks.join('').match(/<path/g)?.length, 2);
    for (const label of ['create', 'ls', 'theirs']) assert.ok(svg.includes(label), label);
  });
});
