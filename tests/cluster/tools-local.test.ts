import { rmSync } from 'node:fs';
import { temporaryDirectory } from '../lab/directories.js';
import { aclCases, fileCases, programCases, sourceTreeCases } from './support/tool-cases.js';

// What these cases ask of a mount must be what a local file system does: they are run on one first.
describe('standard tools on a local directory', function () {
  this.timeout(120_000);
  const dir = temporaryDirectory('tools-reference');
  const local = temporaryDirectory('tools-reference-local');
  after(() => {
    rmSync(dir, { recursive: true, force: true });
    rmSync(local, { recursive: true, force: true });
  });
  const context = {
    dir: () => dir,
    local: () => local,
    can: { bytesNames: true, nanoseconds: true, modificationTimes: true, sharedMmap: true },
  };
  sourceTreeCases(context);
  programCases(context);
  fileCases(context);
  aclCases(context);
});
