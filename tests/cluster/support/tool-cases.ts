import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { writeSourceTree } from '../../../cli/bench/source-tree.js';
import { nodeScript, sh } from '../../lab/command.js';

/**
 * Standard programs on a mounted directory, all from child processes. Run against a plain local directory they pass
 * as well: what they check is what a local file system does.
 */
export interface ToolContext {
  /** The directory under test. */
  dir: () => string;
  /** A local directory for the other side of comparisons. */
  local: () => string;
  /** What the binding under test can do. */
  can: { bytesNames: boolean; nanoseconds: boolean; modificationTimes: boolean; sharedMmap: boolean };
}

/** @param count regular files of the tree */
export function sourceTreeCases({ dir, local, can }: ToolContext, count?: number): void {
  describe('a source tree', () => {
    let files = 0;
    before('make the tree and its archive', async () => {
      files = writeSourceTree(join(local(), 'src'), count);
      await sh(`tar cf tree.tar src`, { cwd: local() });
    });

    it('tar x unpacks it, and diff -r finds no difference', async () => {
      await sh(`tar xf ${local()}/tree.tar && diff -r --no-dereference src ${local()}/src`, { cwd: dir() });
    });

    it('find and grep -r see every file', async () => {
      const found = await sh(
        'find src -type f | wc -l; grep -rl . src | wc -l; grep -r "0 alpha" src | sort | sha256sum',
        { cwd: dir() },
      );
      const [all, grepped, sum] = found.trim().split('\n');
      assert.equal(Number(all), files);
      assert.equal(Number(grepped), files - 1); // one is empty
      assert.equal(sum, (await sh('grep -r "0 alpha" src | sort | sha256sum', { cwd: local() })).trim());
    });

    it('cp -a keeps contents, modes and times', async () => {
      await sh('cp -a src copy && diff -r --no-dereference src copy', { cwd: dir() });
      const time = can.modificationTimes ? '%T@' : '-';
      const list = `find . -printf "%p %m %y %l %s ${time} %n\\n" | grep -v "^\\. \\| d " | sort`;
      assert.equal(await sh(list, { cwd: join(dir(), 'copy') }), await sh(list, { cwd: join(dir(), 'src') }));
    });

    it('rsync -aHAX transfers nothing the second time', async () => {
      const flags = can.modificationTimes ? '-aHAX' : '-aHX --size-only';
      const rsync = `rsync ${flags} --stats ${local()}/src/ synced/`;
      await sh(rsync, { cwd: dir() });
      const second = await sh(rsync, { cwd: dir() });
      assert.match(second, /Number of regular files transferred: 0/);
      assert.match(second, /Number of created files: 0/);
    });

    it('rm -rf removes all of it', async () => {
      await sh('rm -rf src copy synced && test -z "$(ls -A)"', { cwd: dir() });
    });
  });
}

export function programCases({ dir }: ToolContext): void {
  describe('programs', () => {
    it('git init, add, commit, gc, fsck and clone', async () => {
      mkdirSyncIn(dir(), 'git-src');
      await nodeScript(
        `for (let i = 0; i < 300; i++) { const d = path.join(args[0], 'd' + (i % 20)); fs.mkdirSync(d, { recursive: true });
          fs.writeFileSync(path.join(d, 'f' + i), 'line ' + i + '\\n' + 'x'.repeat(i * 7)); }`,
        [join(dir(), 'git-src')],
      );
      const git = 'git -c user.name=t -c user.email=t@example.org -c safe.directory="*"';
      await sh(
        `cd git-src && git init -q . && ${git} add . && ${git} commit -qm one && echo more >> d1/f1 && ${git} commit -qam two
         ${git} gc -q && ${git} fsck --full --strict && cd .. && ${git} clone -q git-src git-copy
         test "$(${git} -C git-copy rev-list --count HEAD)" = 2 && diff -r -x .git git-src git-copy
         test -z "$(${git} -C git-copy status --porcelain)" && rm -rf git-src git-copy`,
        { cwd: dir() },
      );
    });

    for (const journal of ['delete', 'wal']) {
      it(`sqlite with two processes, journal_mode=${journal}`, async () => {
        const database = join(dir(), `db-${journal}`);
        await sh(
          `sqlite3 ${database} 'PRAGMA journal_mode=${journal}; CREATE TABLE t(w INTEGER, n INTEGER);'`,
        );
        const writer = (who: number): string =>
          `for i in $(seq 1 60); do sqlite3 -cmd '.timeout 60000' ${database} "INSERT INTO t VALUES(${who}, $i);"; done`;
        await Promise.all([sh(writer(1)), sh(writer(2))]);
        const answer = await sh(
          `sqlite3 ${database} 'PRAGMA integrity_check; SELECT w, count(*), sum(n) FROM t GROUP BY w;'`,
        );
        assert.equal(answer.trim(), 'ok\n1|60|1830\n2|60|1830');
        await sh(`rm -f ${database}*`);
      });
    }

    it('make -j2 builds a C project', async () => {
      await sh(
        `mkdir cproj && cd cproj
         for i in $(seq 1 12); do echo "int f$i(void) { return $i; }" > f$i.c; done
         (for i in $(seq 1 12); do echo "int f$i(void);"; done
          echo '#include <stdio.h>'; echo 'int main(void) { int s = 0;'
          for i in $(seq 1 12); do echo "s += f$i();"; done; echo 'printf("%d\\n", s); return 0; }') > main.c
         printf 'OBJS=$(patsubst %%.c,%%.o,$(wildcard *.c))\\nprog: $(OBJS)\\n\\t$(CC) -o $@ $(OBJS)\\n%%.o: %%.c\\n\\t$(CC) -O1 -c -o $@ $<\\n' > Makefile
         make -s -j2 && test "$(./prog)" = 78 && make -q && cd .. && rm -rf cproj`,
        { cwd: dir() },
      );
    });
  });
}

export function fileCases({ dir, local, can }: ToolContext): void {
  describe('files', () => {
    it('dd writes and reads back what it was given, at any block size', async () => {
      await sh(
        `dd if=/dev/urandom of=${local()}/r bs=1M count=9 status=none; printf tail >> ${local()}/r
         for bs in 512 4097 65536 1M 4M; do dd if=${local()}/r of=out bs=$bs status=none; cmp ${local()}/r out; done
         dd if=${local()}/r of=out bs=4096 seek=100 count=3 conv=notrunc status=none
         dd if=${local()}/r of=${local()}/l bs=1M status=none; dd if=${local()}/r of=${local()}/l bs=4096 seek=100 count=3 conv=notrunc status=none
         cmp out ${local()}/l; rm out ${local()}/l ${local()}/r`,
        { cwd: dir() },
      );
    });

    it('truncate cuts and extends with zeros', async () => {
      await sh(
        `head -c 9000000 /dev/zero | tr '\\0' x > t; truncate -s 5000001 t; test $(stat -c %s t) = 5000001
         truncate -s 9000000 t; test $(stat -c %s t) = 9000000
         test "$(tail -c 3999999 t | tr -d '\\0' | wc -c)" = 0; test "$(head -c 5000001 t | tr -d x | wc -c)" = 0
         : > t; test $(stat -c %s t) = 0; echo again > t; test "$(cat t)" = again; rm t`,
        { cwd: dir() },
      );
    });

    it('sparse files take only the space of their data, and du says so', async () => {
      await sh(
        `truncate -s 1G sparse; test $(du -k sparse | cut -f1) -lt 100
         printf data | dd of=sparse bs=1 seek=700000000 conv=notrunc status=none; sync sparse
         test $(stat -c %s sparse) = 1073741824; test $(du -k sparse | cut -f1) -lt 1000
         test "$(dd if=sparse bs=4 skip=175000000 count=1 status=none)" = data
         head -c 3000000 /dev/urandom > full; sync full; k=$(du -k full | cut -f1); test $k -ge 2900; test $k -le 3100; rm sparse full`,
        { cwd: dir() },
      );
    });

    it('hard links share one inode', async () => {
      await sh(
        `echo one > a; ln a b; ln b c; test $(stat -c %h a) = 3; test $(stat -c %i a) = $(stat -c %i c)
         echo two >> c; test "$(cat a)" = "$(printf 'one\\ntwo')"; rm a; test $(stat -c %h b) = 2; rm b c`,
        { cwd: dir() },
      );
    });

    it('names of 255 bytes, with newline and odd characters', async () => {
      await nodeScript(
        `const names = ['n'.repeat(255), 'a\\nb', ' lead', "quo'te\\"", 'ä'.repeat(127)];
         for (const n of names) { fs.writeFileSync(path.join(args[0], n), n); }
         const listed = fs.readdirSync(args[0]).sort().join('|');
         if (listed !== [...names].sort().join('|')) throw new Error('listing differs: ' + listed);
         for (const n of names) { if (fs.readFileSync(path.join(args[0], n), 'utf8') !== n) throw new Error(n); fs.unlinkSync(path.join(args[0], n)); }
         try { fs.writeFileSync(path.join(args[0], 'x'.repeat(256)), ''); throw new Error('256 bytes were taken'); }
         catch (e) { if (e.code !== 'ENAMETOOLONG') throw e; }`,
        [mkdirSyncIn(dir(), 'names')],
      );
    });

    it('names that are not UTF-8', async function () {
      if (!can.bytesNames) this.skip();
      await nodeScript(
        `const name = Buffer.concat([Buffer.from(args[0] + '/'), Buffer.from([0xff, 0xfe, 0x80, 0x41])]);
         fs.writeFileSync(name, 'bytes');
         const found = fs.readdirSync(args[0], { encoding: 'buffer' });
         if (!found.some((n) => n.equals(Buffer.from([0xff, 0xfe, 0x80, 0x41])))) throw new Error('not listed');
         if (fs.readFileSync(name, 'utf8') !== 'bytes') throw new Error('content');
         fs.unlinkSync(name);`,
        [dir()],
      );
    });

    it('keeps times before 1970', async function () {
      if (!can.modificationTimes) this.skip();
      await sh(
        `touch -d '1931-05-06 07:08:09 UTC' old; test $(stat -c %Y old) = $(date -d '1931-05-06 07:08:09 UTC' +%s); test $(stat -c %Y old) -lt 0; rm old`,
        {
          cwd: dir(),
        },
      );
    });

    it('keeps nanoseconds', async function () {
      if (!can.nanoseconds) this.skip();
      await sh(
        `touch -d '2001-02-03 04:05:06.123456789 UTC' ns; test "$(TZ=UTC stat -c %y ns)" = '2001-02-03 04:05:06.123456789 +0000'; rm ns`,
        { cwd: dir() },
      );
    });

    it('touch -m and touch -a change one time only', async function () {
      if (!can.modificationTimes) this.skip();
      await sh(
        `touch -d @1000000 t; touch -m -d @2000000 t; test "$(stat -c '%X %Y' t)" = '1000000 2000000'
         touch -a -d @3000000 t; test "$(stat -c '%X %Y' t)" = '3000000 2000000'; rm t`,
        { cwd: dir() },
      );
    });

    it('O_APPEND by four processes loses no line', async () => {
      const append = (who: number): Promise<string> =>
        sh(`for i in $(seq 1 200); do echo "${who} $i" >> log; done`, { cwd: dir() });
      await Promise.all([1, 2, 3, 4].map(append));
      assert.equal((await sh('sort -u log | wc -l; wc -l < log', { cwd: dir() })).trim(), '800\n800');
      await sh('rm log', { cwd: dir() });
    });

    it('an unlinked file lives while it is open', async () => {
      await sh(
        `echo kept > u; exec 5<>u; rm u; test ! -e u; test "$(cat <&5)" = kept; echo more >&5
         test "$(cat /proc/self/fd/5)" = "$(printf 'kept\\nmore')"; exec 5>&-`,
        { cwd: dir() },
      );
    });

    it('rename over an open file leaves the reader its old content', async () => {
      await sh(
        `echo old > target; echo new > source; exec 5<target; mv source target
         test "$(cat <&5)" = old; test "$(cat target)" = new; exec 5<&-; rm target`,
        { cwd: dir() },
      );
    });

    it('mmap: a shared mapping reaches the file', async function () {
      if (!can.sharedMmap) this.skip();
      await sh(
        `cat > ${local()}/map.c <<'C'
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int n, char **a) {
  int f = open(a[1], O_RDWR | O_CREAT, 0644);
  if (f < 0 || ftruncate(f, 3 * 4096)) return 1;
  char *m = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
  if (m == MAP_FAILED) return 2;
  memcpy(m + 5000, "mapped", 6);
  if (msync(m, 3 * 4096, MS_SYNC) || munmap(m, 3 * 4096) || close(f)) return 3;
  return 0;
}
C
         gcc -o ${local()}/map ${local()}/map.c && ${local()}/map m && test "$(tail -c +5001 m | head -c 6)" = mapped && rm m`,
        { cwd: dir() },
      );
    });

    it('fifos, sockets and symlinks', async () => {
      await sh(
        `mkfifo p; test -p p; (echo through > p &); test "$(cat p)" = through; rm p
         ln -s some/where l; test "$(readlink l)" = some/where; rm l`,
        { cwd: dir() },
      );
    });

    it('extended attributes', async () => {
      await sh(
        `touch x; setfattr -n user.colour -v blue x; test "$(getfattr --only-values -n user.colour x)" = blue
         setfattr -x user.colour x; ! getfattr -n user.colour x 2>/dev/null; rm x`,
        { cwd: dir() },
      );
    });

    it('df and statfs tell a size, and mv, chmod, ls -la work', async () => {
      await sh(
        `test $(df --output=size . | tail -1) -gt 1000; mkdir d1; touch d1/f; mv d1 d2; chmod 640 d2/f; test $(stat -c %a d2/f) = 640
         ls -la d2 | grep -q f; ! rmdir d2 2>/dev/null; rm -r d2`,
        { cwd: dir() },
      );
    });
  });
}

function mkdirSyncIn(dir: string, name: string): string {
  const path = join(dir, name);
  mkdirSync(path, { recursive: true });
  return path;
}

/** The access control lists and extended attributes of a tree, by the programs that know them. */
export function aclCases({ dir }: ToolContext): void {
  describe('access control lists and extended attributes', () => {
    const shown = 'getfacl -R -n -p . && getfattr -R -h -d -m "^user[.]" .';
    const inTree = (name: string): Promise<string> => sh(shown, { cwd: join(dir(), name) });

    it('setfacl sets them, names made later inherit them, getfacl shows them', async () => {
      const made = await sh(
        `mkdir -p acl/below && echo x > acl/file && setfacl -m u:64001:rw-,g:64002:r-- acl/file
         setfacl -d -m u:64003:rwx acl/below && mkdir acl/below/dir && echo y > acl/below/dir/file
         setfattr -n user.colour -v green acl/file && setfattr -n user.colour -v red acl/below
         getfacl -n -p -c acl/file acl/below/dir/file`,
        { cwd: dir() },
      );
      assert.match(made, /^user:64001:rw-$/m);
      assert.match(made, /^group:64002:r--$/m);
      assert.match(made, /^user:64003:rwx\t#effective:rw-$/m);
    });

    it('cp -a and rsync -aAX keep them', async () => {
      await sh('cp -a acl acl-copied && rsync -aAX acl/ acl-synced/', { cwd: dir() });
      const expected = await inTree('acl');
      assert.match(expected, /user\.colour="green"/);
      assert.equal(await inTree('acl-copied'), expected);
      assert.equal(await inTree('acl-synced'), expected);
    });
  });
}
