// Brings a fresh checkout to where it can run: Debian packages, npm packages from the lockfile, the build.
// Uses nothing but Node itself. `--tests` also fetches what only the tests need. Quick when nothing is missing.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');
const SOURCE_DIRS = ['cli', 'client', 'common', 'chunkserver', 'metaserver', 'proto', 'tests'];
const MIN_NODE_MAJOR = 20;

/** Debian packages, and a file or command that shows that each is there. */
const RUNTIME_PACKAGES = [
  { name: 'fuse3', has: () => onPath('fusermount3') },
  { name: 'libfuse2', has: () => libraryExists('libfuse.so.2') },
];
const TEST_PACKAGES = [
  ...['fio', 'git', 'rsync', 'sqlite3', 'gcc', 'make', 'tar', 'strace', 'openssl', 'python3'].map((name) => ({
    name,
    has: () => onPath(name),
  })),
  { name: 'procps', has: () => onPath('ps') },
  { name: 'attr', has: () => onPath('setfattr') },
  { name: 'acl', has: () => onPath('setfacl') },
  { name: 'iproute2', has: () => onPath('ip') },
  { name: 'e2fsprogs', has: () => onPath('mkfs.ext4') },
  { name: 'util-linux', has: () => onPath('setpriv') },
];

function fail(line) {
  console.error(`setup: ${line}`);
  process.exit(2);
}

function onPath(command) {
  return (process.env.PATH ?? '').split(':').some((dir) => dir && existsSync(join(dir, command)));
}

function libraryExists(name) {
  const roots = ['/lib', '/usr/lib', '/usr/local/lib'];
  const dirs = roots.flatMap((root) => {
    if (!existsSync(root)) return [];
    const below = readdirSync(root, { withFileTypes: true }).filter((entry) =>
      entry.name.includes('-linux-gnu'),
    );
    return [root, ...below.map((entry) => join(root, entry.name))];
  });
  return dirs.some((dir) => existsSync(join(dir, name)));
}

/** Its standard error is shown, and with it npm's progress on a terminal; what it prints only when it fails. */
function run(command, args, what) {
  const stdio = ['ignore', 'pipe', 'inherit'];
  const result = spawnSync(command, args, { cwd: ROOT, stdio, encoding: 'utf8' });
  if (result.status === 0) return;
  process.stderr.write(result.stdout ?? '');
  fail(`${what} failed (${command} ${args.join(' ')})`);
}

function installDebianPackages(packages) {
  const missing = packages.filter((one) => !one.has()).map((one) => one.name);
  if (missing.length === 0) return;
  const line = `missing Debian packages; as root: apt-get install -y ${missing.join(' ')}`;
  if (process.getuid?.() !== 0 || !onPath('apt-get')) fail(line);
  console.error(`setup: installing ${missing.join(' ')}`);
  process.env.DEBIAN_FRONTEND = 'noninteractive';
  spawnSync('apt-get', ['update', '-qq'], { stdio: 'ignore' });
  const result = spawnSync('apt-get', ['install', '-y', '-qq', ...missing], { stdio: 'ignore' });
  if (result.status !== 0) fail(line);
}

function digestFile(hash, path) {
  hash.update(path.slice(ROOT.length));
  hash.update(readFileSync(path));
}

function digestTree(hash, dir, endings) {
  for (const entry of readdirSync(dir, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) {
      if (entry.name !== 'gen') digestTree(hash, path, endings);
    } else if (endings.some((ending) => entry.name.endsWith(ending))) digestFile(hash, path);
  }
}

/** Runs `action` unless the stamp file already holds `digest`. */
function onceFor(stamp, digest, action) {
  const path = join(ROOT, 'node_modules', '.cache', 'holdfast', stamp);
  if (existsSync(path) && readFileSync(path, 'utf8') === digest) return;
  action();
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, digest);
}

const major = Number(process.versions.node.split('.')[0]);
if (major < MIN_NODE_MAJOR) fail(`Node ${MIN_NODE_MAJOR} or newer is needed, this is ${process.version}`);
installDebianPackages(
  process.argv.includes('--tests') ? [...RUNTIME_PACKAGES, ...TEST_PACKAGES] : RUNTIME_PACKAGES,
);

const lock = createHash('sha256');
digestFile(lock, join(ROOT, 'package-lock.json'));
// Not `npm ci`: it refuses a lockfile without the binaries for platforms whose packages a registry does not hold.
onceFor('packages', lock.digest('hex'), () => {
  console.error('setup: installing npm packages');
  run(
    'npm',
    ['install', '--no-save', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'],
    'installing npm packages',
  );
});

const sources = createHash('sha256');
for (const dir of SOURCE_DIRS)
  if (statSync(join(ROOT, dir)).isDirectory()) digestTree(sources, join(ROOT, dir), ['.ts', '.proto']);
for (const file of ['tsconfig.json', 'buf.gen.yaml', 'package-lock.json'])
  digestFile(sources, join(ROOT, file));
const built = existsSync(join(ROOT, 'dist', 'cli', 'main.js')) ? 'built' : 'missing';
onceFor('build', `${sources.digest('hex')} built`, () => {
  console.error('setup: building');
  // Files of deleted sources must not linger: mocha would run them.
  rmSync(join(ROOT, 'dist'), { recursive: true, force: true });
  run('npm', ['run', '--silent', 'build'], 'the build');
});
if (built === 'missing' && !existsSync(join(ROOT, 'dist', 'cli', 'main.js')))
  run('npm', ['run', '--silent', 'build'], 'the build');
