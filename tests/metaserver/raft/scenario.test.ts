import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Scenario } from './scenario.js';

/** Writes the files anew with what the scenarios print now; review the difference before you commit it. */
const REWRITE = process.env.RAFT_REWRITE === '1';

/** The files stand beside the sources, also when the compiled tests run. */
function testdata(): string {
  let root = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(root, 'package.json'))) root = dirname(root);
  return join(root, 'tests/metaserver/raft/testdata');
}

/**
 * A file is a sequence of blocks separated by empty lines: commands, `----`, what they print. Comments start
 * with `#`.
 * @returns the file with the output as it is now
 */
function play(text: string): string {
  const scenario = new Scenario();
  const blocks = text.trimEnd().split(/\n\n+/);
  const played = blocks.map((block) => {
    const input = block.split('\n----')[0]!;
    const commands = input.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    if (commands.length === 0) return block;
    const output = commands.flatMap((command) => scenario.run(command));
    return [input, '----', ...(output.length > 0 ? output : ['ok'])].join('\n');
  });
  return `${played.join('\n\n')}\n`;
}

describe('raft scenarios', () => {
  const folder = testdata();
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.txt'))) {
    it(file.replace('.txt', '').replaceAll('-', ' '), () => {
      const path = join(folder, file);
      const text = readFileSync(path, 'utf8');
      const played = play(text);
      if (REWRITE && played !== text) writeFileSync(path, played);
      else assert.equal(played, text);
    });
  }
});
