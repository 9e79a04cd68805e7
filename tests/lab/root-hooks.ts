import type { Context, RootHookObject, Suite } from 'mocha';

/**
 * A test that fails after so long has waited for something that does not come any more: a mount that answers nobody, mostly.
 * Those behind it in its file would wait as long for the same thing, and the run would take hours to say what it knows.
 */
const HUNG_MS = 120_000;

function bailAll(suite: Suite): void {
  suite.bail(true);
  for (const child of suite.suites) bailAll(child);
}

/** Skips what is left of a file behind a test that failed after `hungMs`. */
export function givingUpAfter(hungMs: number): RootHookObject {
  return {
    afterEach(this: Context) {
      const test = this.currentTest;
      if (test?.state !== 'failed' || (test.duration ?? 0) < hungMs) return;
      let root: Suite | undefined = test.parent;
      while (root?.parent) root = root.parent;
      for (const suite of root?.suites ?? []) if (suite.file === test.file) bailAll(suite);
    },
  };
}

export const mochaHooks = givingUpAfter(HUNG_MS);
