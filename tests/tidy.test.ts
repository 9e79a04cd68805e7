import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, posix, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The layout's rules as tests: a failure names what to use instead. */

/** Built to dist/tests/: the checkout is two levels up. */
const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const PARTS = ['client', 'metaserver', 'chunkserver'];
const FILE_LINES_MAX = 500;

/** What each top-level directory may import besides itself. */
const MAY_IMPORT: Record<string, string[]> = {
  common: [],
  proto: ['common'],
  client: ['proto', 'common'],
  metaserver: ['proto', 'common'],
  chunkserver: ['proto', 'common'],
  cli: [...PARTS, 'proto', 'common'],
  tests: [...PARTS, 'cli', 'proto', 'common', 'tests'],
};

/** One home per dependency. */
const HOMES: Record<string, string[]> = {
  '@grpc/grpc-js': ['proto/rpc.ts'],
  '@node-rs/crc32': ['common/crc32c.ts'],
  lmdb: ['metaserver/store/', 'chunkserver/store/'],
  'fuse-native': ['client/fuse/fuse-native'],
  pino: ['common/logger.ts'],
  commander: ['cli/'],
};

/** Inside the client. */
const CLIENT_LAYERS: Record<string, string[]> = {
  'client/data/': ['client/fuse/', 'client/vfs/'],
  'client/meta/': ['client/fuse/', 'client/vfs/', 'client/data/'],
};

/** Synchronous cores: no socket, file, clock or chance of their own. */
const PURE = ['metaserver/raft/', 'metaserver/namespace/', 'chunkserver/pg/'];
const IMPURE_MODULES =
  /^(node:(fs|net|http|child_process|dgram|timers|crypto|os|worker_threads)|@grpc|lmdb|pino)/;

/** Ambient time and chance, and who wraps them. */
const AMBIENT: { pattern: RegExp; instead: string }[] = [
  { pattern: /\bDate\.now\(|\bnew Date\(\)/, instead: 'Clock of common/clock.ts' },
  { pattern: /\bsetTimeout\(|\bsetInterval\(/, instead: 'Clock.after or Clock.every of common/clock.ts' },
  { pattern: /\bMath\.random\(/, instead: 'Prng of common/prng.ts' },
];

interface Source {
  path: string;
  text: string;
  imports: string[];
}

function sources(): Source[] {
  const listed = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '*.ts', '*.mjs'], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  return listed
    .trim()
    .split('\n')
    .filter((path) => existsSync(join(ROOT, path)))
    .map((path) => {
      const text = readFileSync(join(ROOT, path), 'utf8');
      const found = text.matchAll(
        /(?:^|\n)\s*(?:import|export)\b[^'";]*?from\s+'([^']+)'|import\(\s*'([^']+)'\s*\)|(?:^|\n)import\s+'([^']+)'/g,
      );
      return { path, text, imports: [...found].map((match) => (match[1] ?? match[2] ?? match[3]) as string) };
    });
}

function resolveImport(from: string, specifier: string): string | undefined {
  return specifier.startsWith('.') ? posix.normalize(posix.join(posix.dirname(from), specifier)) : undefined;
}

function offences(check: (source: Source) => string[]): string[] {
  return sources().flatMap((source) => check(source).map((text) => `${source.path}: ${text}`));
}

describe('the source tree', () => {
  it('has sources at all', () => {
    assert.ok(
      sources().length > 50,
      `only ${sources().length} sources under ${relative(process.cwd(), ROOT)}`,
    );
  });

  it('imports one way: cli -> parts -> proto -> common, and no part another', () => {
    const found = offences(({ path, imports }) => {
      const top = path.split('/')[0] as string;
      const allowed = MAY_IMPORT[top];
      if (!allowed) return [];
      return imports.flatMap((specifier) => {
        const target = resolveImport(path, specifier)?.split('/')[0];
        if (target === undefined || target === top || allowed.includes(target)) return [];
        return [`imports ${specifier}; share it as a message in proto/ or a tool in common/`];
      });
    });
    assert.deepEqual(found, []);
  });

  it('keeps the layers inside the client', () => {
    const found = offences(({ path, imports }) =>
      Object.entries(CLIENT_LAYERS).flatMap(([layer, forbidden]) => {
        if (!path.startsWith(layer)) return [];
        return imports
          .filter((specifier) => forbidden.some((dir) => resolveImport(path, specifier)?.startsWith(dir)))
          .map((specifier) => `imports ${specifier}; the direction is fuse -> vfs -> data, meta -> proto`);
      }),
    );
    assert.deepEqual(found, []);
  });

  it('gives each dependency one home', () => {
    const found = offences(({ path, imports }) => {
      if (path.startsWith('tests/') || path.startsWith('scripts/')) return [];
      return imports.flatMap((specifier) => {
        const home = Object.entries(HOMES).find(
          ([name]) => specifier === name || specifier.startsWith(`${name}/`),
        );
        if (!home || home[1].some((prefix) => path.startsWith(prefix))) return [];
        return [`imports ${specifier}; use ${home[1].join(' or ')}`];
      });
    });
    assert.deepEqual(found, []);
  });

  it('keeps the cores pure', () => {
    const found = offences(({ path, imports }) => {
      if (!PURE.some((dir) => path.startsWith(dir))) return [];
      return imports
        .filter((specifier) => IMPURE_MODULES.test(specifier))
        .map((specifier) => `imports ${specifier}; hand it in from the shell`);
    });
    assert.deepEqual(found, []);
  });

  it('takes time and chance only from common/', () => {
    const found = offences(({ path, text }) => {
      if (!path.endsWith('.ts') || path.startsWith('common/') || path.startsWith('tests/')) return [];
      return AMBIENT.filter(({ pattern }) => pattern.test(text)).map(({ instead }) => `use ${instead}`);
    });
    assert.deepEqual(found, []);
  });

  it('imports no main.ts and no test, but for the command line', () => {
    const found = offences(({ path, imports }) => {
      if (path.startsWith('cli/') || path.startsWith('tests/')) return [];
      return imports
        .filter((specifier) => /(^|\/)main\.js$|\.test\.js$/.test(specifier))
        .map((specifier) => `imports ${specifier}`);
    });
    assert.deepEqual(found, []);
  });

  it('has no file that one head cannot hold', () => {
    const found = offences(({ text }) => {
      const lines = text.split('\n').length - 1;
      return lines > FILE_LINES_MAX
        ? [`${lines} lines; split it by concept (at most ${FILE_LINES_MAX})`]
        : [];
    });
    assert.deepEqual(found, []);
  });

  it('names files in kebab-case', () => {
    const found = offences(({ path }) =>
      /^[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9-]+)*\.(ts|mjs)$/.test(posix.basename(path))
        ? []
        : ['not kebab-case'],
    );
    assert.deepEqual(found, []);
  });
});
