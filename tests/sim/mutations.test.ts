import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { FAULT_NAMES } from './faults.js';
import { MUTATIONS } from './mutations/index.js';
import { Simulation } from './simulation.js';

describe('a planted bug that the simulation finds', function () {
  this.timeout(1_200_000);
  const stackTraceLimit = Error.stackTraceLimit;
  before(() => {
    Error.stackTraceLimit = 0;
  });
  after(() => {
    Error.stackTraceLimit = stackTraceLimit;
  });

  it('is one of at least twelve', () => {
    assert.ok(new Set(MUTATIONS.map(({ name }) => name)).size >= 12);
  });

  it('shows under faults that there are: another name would end every run, and count as found', () => {
    for (const { name, favourite } of MUTATIONS) {
      assert.ok(favourite === undefined || FAULT_NAMES.has(favourite), `${name}: ${favourite}`);
    }
  });

  it('stands in the list of docs/simulator.md', () => {
    const list = readFileSync('docs/simulator.md', 'utf8');
    assert.deepEqual(
      MUTATIONS.map(({ text }) => text).filter((text) => !list.includes(`- ${text}`)),
      [],
    );
  });

  for (const mutation of MUTATIONS) {
    const { first = 1, seeds } = mutation;
    const from = first === 1 ? '' : ` from ${first} on`;
    it(`within ${seeds} seeds${from}: ${mutation.text}`, async () => {
      for (let seed = first; seed < first + seeds; seed++) {
        try {
          await new Simulation({ seed, mutation }).run();
        } catch {
          return;
        }
      }
      assert.fail(`${mutation.name} was not found within ${seeds} seeds from ${first} on`);
    });
  }
});
