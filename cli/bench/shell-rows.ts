import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sh } from './child.js';
import { writeSourceTree } from './source-tree.js';
import type { BenchTarget, Recorder } from './workloads.js';

const SCRIPT_TIMEOUT_MS = 300_000;

/** Standard tools on a tree of about 2,100 source files: seconds each. Cold rows come behind those that need no mount made anew. */
export async function shellRows(target: BenchTarget, out: Recorder): Promise<void> {
  const work = await mkdtemp(join(tmpdir(), 'holdfast-bench-'));
  const env = {
    HOME: work,
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_AUTHOR_NAME: 'b',
    GIT_AUTHOR_EMAIL: 'b@b',
    GIT_COMMITTER_NAME: 'b',
    GIT_COMMITTER_EMAIL: 'b@b',
  };
  const seconds = (label: string, script: string): Promise<void> =>
    out.attempt(label, async () => {
      const options = { cwd: target.dir(), timeoutMs: SCRIPT_TIMEOUT_MS, env };
      const text = await sh(
        `start=$(date +%s%N); { ${script}; } > /dev/null; echo $(( $(date +%s%N) - start ))`,
        options,
      );
      out.add(label, Number(text.trim().split('\n').at(-1)) / 1e9, 's', false);
    });
  try {
    writeSourceTree(join(work, 'src'));
    await sh('tar cf tree.tar src && cat tree.tar > /dev/null', { cwd: work, timeoutMs: SCRIPT_TIMEOUT_MS });
    await seconds('tar x', `tar xf ${join(work, 'tree.tar')}`);
    await seconds('cp -r', 'cp -r src copy');
    await seconds('git init + add + commit', 'cd copy && git init -q . && git add -A && git commit -q -m x');
    await seconds('git status', 'cd copy && test -z "$(git status --porcelain)"');
    await out.attempt('contents', () =>
      sh('diff -r --exclude=.git --no-dereference src copy', {
        cwd: target.dir(),
        timeoutMs: SCRIPT_TIMEOUT_MS,
      }).then(() => {}),
    );
    await seconds('rm -rf', 'rm -rf copy');
    await target.cold();
    await sh('grep -c x /etc/passwd; git --version; rm --version', { timeoutMs: SCRIPT_TIMEOUT_MS });
    await seconds('grep -r, cold', 'grep -rc alpha src');
    await seconds('grep -r, warm', 'grep -rc alpha src');
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
