import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createPrng } from '../../common/prng.js';

/** Regular files of the tree, unless fewer are asked for. */
export const SOURCE_TREE_FILES = 2_100;

const DIRECTORIES = 60;
const WORDS = ['alpha', 'bravo', 'charlie', 'delta', 'echo', 'foxtrot', 'golf', 'hotel', 'india', 'juliet'];

/**
 * Writes a source tree as programs have them below `root`: many small files in nested directories, some larger, links, odd names. The same seed gives the same tree.
 * @returns how many regular files it has
 */
export function writeSourceTree(root: string, files = SOURCE_TREE_FILES, seed = 1): number {
  const prng = createPrng(seed);
  const directories = [root];
  mkdirSync(root, { recursive: true });
  for (let i = 1; i < DIRECTORIES; i++) {
    const parent = directories[prng.int(directories.length)] as string;
    const directory = join(parent, `${WORDS[prng.int(WORDS.length)]}-${i}`);
    mkdirSync(directory);
    directories.push(directory);
  }
  for (let i = 0; i < files; i++) {
    const directory = directories[prng.int(directories.length)] as string;
    const lines = prng.int(100) === 0 ? 5_000 + prng.int(20_000) : 1 + prng.int(150);
    const text = Array.from(
      { length: lines },
      (_, line) => `${line} ${WORDS[prng.int(WORDS.length)]} = ${prng.int(1e6)};`,
    );
    writeFileSync(join(directory, `file-${i}.c`), `${text.join('\n')}\n`, {
      mode: i % 50 === 0 ? 0o755 : 0o644,
    });
  }
  symlinkSync('file-0.c', join(root, 'link-to-file'));
  symlinkSync('/does/not/exist', join(root, 'broken link'));
  writeFileSync(join(root, 'empty'), '');
  writeFileSync(join(root, 'naïve name — ünïcode'), 'x\n');
  return files + 2;
}
