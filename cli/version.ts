import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The package's version; this file is two levels below it once built. */
export const VERSION: string = (
  JSON.parse(readFileSync(fileURLToPath(new URL('../../package.json', import.meta.url)), 'utf8')) as {
    version: string;
  }
).version;
