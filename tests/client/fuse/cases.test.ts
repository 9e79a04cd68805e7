import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ALL_FEATURES, casesFor, type Feature } from './support/cases.js';
import { sh } from './support/shell.js';

/** The cases themselves are right when a local file system passes them. O_TMPFILE and holes depend on its type. */
describe('the cases for mounts, on a local directory', () => {
  const features = ALL_FEATURES.filter((each): each is Feature => each !== 'tmpfile');
  let base: string;
  before(async () => {
    base = await mkdtemp(path.join(tmpdir(), 'holdfast-cases-'));
  });
  after(() => rm(base, { recursive: true, force: true }));

  for (const [index, each] of casesFor(features).entries()) {
    it(each.name, async () => {
      const dir = path.join(base, `case-${index}`);
      await sh(base, `mkdir ${dir}`);
      await each.run((script) => sh(dir, script));
    });
  }
});
