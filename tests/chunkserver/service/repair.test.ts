import assert from 'node:assert/strict';
import { LinkTable } from '../../../chunkserver/service/links.js';
import { Repair } from '../../../chunkserver/service/repair.js';
import { silentLogger } from '../../../common/logger.js';
import { HoldfastError } from '../../../proto/errors.js';
import { MemoryStore } from '../support/memory-store.js';

const KEY = { ino: 5, chunk: 0 };

/** Links to servers that answer every FETCH with an error. */
function linksTo(servers: Record<number, HoldfastError>): LinkTable {
  const links = new LinkTable();
  links.get = (server) => {
    const error = servers[server];
    const request = (...args: unknown[]): void => (args.at(-1) as (error?: HoldfastError) => void)(error);
    return error && ({ request } as unknown as ReturnType<LinkTable['get']>);
  };
  return links;
}

async function failure(servers: Record<number, HoldfastError>, from: number[]): Promise<string> {
  const repair = new Repair(new MemoryStore(), linksTo(servers), silentLogger);
  const error = await repair.chunk(0, 1, KEY, from).catch((cause: unknown) => cause);
  assert.ok(error instanceof HoldfastError);
  return error.errorName;
}

describe('the repair of a chunk', () => {
  const damaged = new HoldfastError('CORRUPT');

  it('tells copies that are damaged from copies that are out of reach', async () => {
    assert.equal(await failure({ 2: damaged, 3: damaged }, [2, 3]), 'CORRUPT');
    assert.equal(await failure({}, [2, 3]), 'UNAVAILABLE');
    assert.equal(await failure({ 2: damaged }, [2, 3]), 'UNAVAILABLE', 'server 3 may have a sound one');
  });

  it('has nobody to ask where there is no other replica', async () => {
    assert.equal(await failure({}, []), 'CORRUPT');
  });
});
