import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { MountStatistics } from '../../client/main.js';
import { nodeScript, sh } from '../lab/command.js';
import { eventually } from '../lab/eventually.js';
import { TestCluster } from '../lab/test-cluster.js';

describe('caches under leases, on two mounts of one cluster', function () {
  this.timeout(240_000);
  const cluster = new TestCluster('coherence');
  let a: string;
  let b: string;
  before(async () => {
    await cluster.up();
    a = cluster.dir;
    b = await cluster.mount('second');
  });
  after(() => cluster.destroy());

  /** What the first mount has asked of servers so far. */
  async function statistics(): Promise<MountStatistics> {
    const lines = (): string[] => {
      const dir = join(cluster.data, 'log');
      const logs = readdirSync(dir).filter((file) => /^mount\.log$/.test(file));
      return logs
        .flatMap((file) => readFileSync(join(dir, file), 'utf8').split('\n'))
        .filter((line) => line.includes('"msg":"statistics"'));
    };
    const before = lines().length;
    process.kill(cluster.pid('mount'), 'SIGUSR2');
    return eventually('the mount logs its statistics', () => {
      const now = lines();
      return (
        now.length > before &&
        (JSON.parse(now.at(-1) as string) as { statistics: MountStatistics }).statistics
      );
    });
  }

  it('what is warm asks no server: stat, open and read, ls, absent names, extended attributes', async () => {
    await sh(`mkdir ${b}/tree ${b}/tree/sub; for i in $(seq 50); do echo $i > ${b}/tree/f$i; done; ln -s f1 ${b}/tree/link
              setfattr -n user.x -v y ${b}/tree/f1`);
    const warm = `cd ${a}/tree; ls -l > /dev/null; cat f* > /dev/null; stat -L link > /dev/null; test ! -e nothing
      getfattr -d f1 > /dev/null; getfattr -n user.absent f1 2> /dev/null || true; ls sub; ls -R . > /dev/null`;
    await sh(`${warm}\n${warm}`);
    const asked = ({ metaReads, metaBatches, leases }: MountStatistics) => ({
      metaReads,
      metaBatches,
      leases,
    });
    // An access time makes the kernel ask for attributes.
    const ofKernel = ({ fuse: { LOOKUP, READ, READLINK } }: MountStatistics) => ({ LOOKUP, READ, READLINK });
    const before = await statistics();
    const seen = [before];
    for (let round = 0; round < 5; round++) {
      await sh(warm);
      seen.push(await statistics());
    }
    const after = seen.at(-1) as MountStatistics;
    assert.deepEqual(asked(after), asked(before));
    // The kernel asks the mount again for what it was told longer ago than a lease lasts, which happens to any one round,
    // and for pages when its cache is emptied (`holdfast bench` in another test does it, or a lack of memory).
    const rounds = seen.slice(1).map((now, n) => ({ now, before: seen[n] as MountStatistics }));
    const quiet = rounds.filter(({ now, before }) => isDeepStrictEqual(ofKernel(now), ofKernel(before)));
    assert.ok(quiet.length > 0, JSON.stringify(seen.map(ofKernel)));
    for (const { now, before } of rounds)
      if (now.fuse.READ === before.fuse.READ) assert.equal(now.chunkRequests, before.chunkRequests);
    // Access times are told once, some seconds later.
    assert.ok(after.metaMutations <= before.metaMutations + 1, `${after.metaMutations} mutations`);
  });

  it('a warm ls -l asks for the label of SELinux once, not for that of each name', async () => {
    const asked = async (): Promise<number> => (await statistics()).fuse.GETXATTR ?? 0;
    const seen = [await asked()];
    for (let round = 0; round < 4; round++) {
      await sh(`ls -l ${a}/tree > /dev/null`);
      seen.push(await asked());
    }
    // What the kernel was told longer ago than a lease lasts it asks for again: access lists, in any one round.
    const least = Math.min(...seen.slice(1).map((now, n) => now - (seen[n] as number)));
    assert.ok(least <= 2, `GETXATTR so far: ${seen}`);
  });

  it('a change elsewhere is seen by what was warm', async () => {
    await sh(`test "$(cat ${a}/tree/f7)" = 7; echo other > ${b}/tree/f7; test "$(cat ${a}/tree/f7)" = other
              test ! -e ${a}/tree/nothing; touch ${b}/tree/nothing; test -e ${a}/tree/nothing
              chmod 600 ${b}/tree/f8; test "$(stat -c %a ${a}/tree/f8)" = 600
              rm ${b}/tree/f9; test ! -e ${a}/tree/f9; test "$(ls ${a}/tree | sort)" = "$(ls ${b}/tree | sort)"
              setfattr -n user.x -v z ${b}/tree/f1; test "$(getfattr --only-values -n user.x ${a}/tree/f1)" = z
              mv ${b}/tree/sub ${b}/tree/bus; test -d ${a}/tree/bus -a ! -e ${a}/tree/sub`);
  });

  it('a page read while another mount writes to the file is not shown behind a change made here', async () => {
    await nodeScript(
      `const [a, b] = args;
       fs.writeFileSync(path.join(a, 'pages'), 'none'.padEnd(100, '.'));
       const ours = fs.openSync(path.join(a, 'pages'), 'r+');
       const look = () => { const cell = Buffer.alloc(8); fs.readSync(ours, cell, 0, 8, 0); return cell.toString(); };
       look();
       const theirs = fs.openSync(path.join(b, 'pages'), 'r+');
       const changes = {
         fchmod: (n) => fs.fchmodSync(ours, n % 2 ? 0o600 : 0o644),
         fchown: () => fs.fchownSync(ours, 0, 0),
         ftruncate: () => fs.ftruncateSync(ours, 100),
         pwrite: () => fs.writeSync(ours, 'ours', 50),
       };
       let n = 0;
       for (const [name, change] of Object.entries(changes)) {
         for (let round = 0; round < 10; round++) {
           for (const behind of [() => {}, change]) {
             const value = String(++n).padStart(8);
             fs.writeSync(theirs, value, 0);
             behind(n);
             const seen = look();
             if (seen !== value) throw new Error(seen + ' behind ' + name + ' in place of ' + value);
           }
         }
       }`,
      [a, b],
    );
  });

  it('a listing that the kernel keeps shows each change elsewhere, and here, to whoever lists afterwards', async () => {
    await nodeScript(
      `const [a, b] = args; fs.mkdirSync(path.join(a, 'listed'));
       const names = new Set();
       const check = (when) => {
         for (const mount of [a, b, a]) {
           const seen = fs.readdirSync(path.join(mount, 'listed')).sort().join(' ');
           if (seen !== [...names].sort().join(' ')) throw new Error(when + ' on ' + mount + ': ' + seen);
         }
       };
       for (let i = 0; i < 40; i++) {
         const mount = i % 3 ? b : a;
         if (i % 4 === 3) {
           const gone = [...names][0];
           fs.unlinkSync(path.join(mount, 'listed', gone));
           names.delete(gone);
         } else {
           fs.writeFileSync(path.join(mount, 'listed', 'n' + i), '');
           names.add('n' + i);
         }
         check('round ' + i);
       }`,
      [a, b],
    );
  });

  it('files made here without waiting are complete for others as soon as they look', async () => {
    await nodeScript(
      `const [a, b] = args; fs.mkdirSync(path.join(a, 'own'));
       for (let i = 0; i < 300; i++) {
         fs.writeFileSync(path.join(a, 'own', 'f' + i), 'contents ' + i);
         if (i % 10) continue;
         if (fs.readFileSync(path.join(b, 'own', 'f' + i), 'utf8') !== 'contents ' + i) throw new Error('f' + i);
         if (fs.readdirSync(path.join(b, 'own')).length !== i + 1) throw new Error('listing at ' + i);
       }`,
      [a, b],
    );
  });

  it('in a directory to oneself changes cost no request each', async () => {
    await sh(`mkdir ${a}/mine; touch ${a}/mine/first ${a}/mine/second`);
    const before = await statistics();
    await sh(`cd ${a}/mine; for i in $(seq 100); do echo $i > g$i; done; for i in $(seq 50); do mv g$i h$i; done
              for i in $(seq 50); do rm h$i; done; mkdir d; rmdir d; chmod 600 g*`);
    const after = await statistics();
    assert.ok(after.metaMutations - before.metaMutations <= 2, 'inode numbers at the most');
    assert.ok(after.metaReads - before.metaReads <= 2, JSON.stringify([before, after]));
    await sh(`sync ${a}/mine; test "$(ls ${b}/mine | wc -l)" = 52`);
  });

  it('several processes on both mounts in one directory lose and double nothing', async () => {
    await sh(`mkdir ${a}/busy`);
    const work = (dir: string, tag: string): Promise<string> =>
      nodeScript(
        `const [dir, tag] = args; let seen = 0;
         for (let i = 0; i < 60; i++) {
           const name = path.join(dir, 'busy', tag + i);
           fs.writeFileSync(name, tag); fs.renameSync(name, name + 'r');
           if (i % 3 === 0) fs.unlinkSync(name + 'r');
           seen = fs.readdirSync(path.join(dir, 'busy')).filter((one) => one.startsWith(tag)).length;
         }
         console.log(seen);`,
        [dir, tag],
      );
    const seen = await Promise.all([work(a, 'p'), work(b, 'q'), work(a, 's'), work(b, 't')]);
    assert.deepEqual(seen.map(Number), [40, 40, 40, 40]);
    assert.equal(await sh(`ls ${a}/busy | wc -l`), await sh(`ls ${b}/busy | wc -l`));
  });

  it('a file written on one and read on the other is never seen old, while both have it open', async () => {
    await nodeScript(
      `const [a, b] = args; const data = Buffer.alloc(5000);
       const w = fs.openSync(path.join(a, 'shared'), 'w'); fs.writeSync(w, data, 0, 5000, 0);
       const r = fs.openSync(path.join(b, 'shared'), 'r+'); const seen = Buffer.alloc(5000);
       for (let i = 1; i <= 60; i++) {
         const [from, to] = i % 2 ? [w, r] : [r, w]; data.fill(i);
         fs.writeSync(from, data, 0, 5000, (i % 3) * 5000);
         if (i % 2 && fs.readSync(to, seen, 0, 5000, (i % 3) * 5000) !== 5000) throw new Error('short at ' + i);
         if (i % 2 && seen.some((byte) => byte !== i)) throw new Error('old data at ' + i);
         if (fs.fstatSync(to).size < ((i % 3) + 1) * 5000) throw new Error('old size at ' + i);
       }`,
      [a, b],
    );
  });

  it('blocks that are read at many places cost few requests, and are as the last write on either mount left them', async () => {
    const bytes = 2 * 1024 * 1024;
    const reads = 1_000;
    const write = (dir: string, fill: number): Promise<string> =>
      nodeScript(`fs.writeFileSync('${dir}/dense', Buffer.alloc(${bytes}, ${fill}), { flag: 'r+' })`);
    /** Each read through one of a few descriptions; prints what was not as written. */
    const readAll = (dir: string, fill: number): Promise<string> =>
      nodeScript(`const page = Buffer.alloc(4096);
        const files = [1, 2, 3].map(() => fs.openSync('${dir}/dense', 'r'));
        for (let i = 0; i < ${reads}; i++) {
          const at = ((i * 7919) % ${bytes / 4096}) * 4096;
          fs.readSync(files[i % files.length], page, 0, 4096, at);
          if (!page.equals(Buffer.alloc(4096, ${fill}))) console.log(at, page[0]);
        }`);
    await sh(`head -c ${bytes} /dev/zero > ${b}/dense`);
    let fill = 1;
    for (const writer of [b, a, b]) {
      await write(writer, fill);
      const before = await statistics();
      assert.equal(await readAll(a, fill), '');
      const asked = ((await statistics()).fuse.READ ?? 0) - (before.fuse.READ ?? 0);
      assert.ok(asked < reads / 4, `${asked} requests for ${reads} reads`);
      assert.equal(await readAll(b, fill), '');
      fill++;
    }
  });

  it('small files read in the order of their directory cost few reads, and are as they were written last on either mount', async () => {
    const files = 300;
    const bytes = (i: string): string => `Buffer.alloc(1 + ((${i} * 977) % 9000), ${i} % 251)`;
    const write = (dir: string, step: number, shift: number): Promise<string> =>
      nodeScript(`for (let i = 0; i < ${files}; i += ${step})
        fs.writeFileSync('${dir}/small/f' + i, ${bytes(`(i + ${shift})`)});`);
    /** In the listing's order; prints what is not as written. */
    const readAll = (dir: string, step: number, shift: number): Promise<string> =>
      nodeScript(`for (let i = 0; i < ${files}; i++) {
        const data = fs.readFileSync('${dir}/small/f' + i);
        const at = i % ${step} === 0 ? i + ${shift} : i;
        if (!data.equals(Buffer.alloc(1 + ((at * 977) % 9000), at % 251))) console.log(i, data.length, data[0]);
      }`);
    await sh(`mkdir ${b}/small`);
    await write(b, 1, 0);
    await sh(`ls -l ${a}/small`);
    const before = await statistics();
    assert.equal(await readAll(a, files, 0), '');
    const asked = ((await statistics()).fuse.READ ?? 0) - (before.fuse.READ ?? 0);
    assert.ok(asked < files / 2, `${asked} reads of ${files} files`);
    let shift = 1;
    for (const writer of [b, a]) {
      await write(writer, 3, shift);
      for (const reader of [a, b]) assert.equal(await readAll(reader, 3, shift), '');
      shift++;
    }
  });

  it('a mount that is stopped delays others no longer than its session lasts, and then sees what is new', async () => {
    await sh(
      `mkdir ${a}/stopped; echo old > ${a}/stopped/f; sync ${a}/stopped/f; cat ${a}/stopped/f > /dev/null`,
    );
    const pid = cluster.pid('mount');
    process.kill(pid, 'SIGSTOP');
    try {
      await sh(`echo new > ${b}/stopped/f`, { timeoutMs: 90_000 });
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await sh(`test "$(cat ${a}/stopped/f)" = new`);
  });
});
