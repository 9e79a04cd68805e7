import assert from 'node:assert/strict';
import type { MountCase } from './cases.js';

/** Contents of files. */
export const FILE_CASES: readonly MountCase[] = [
  {
    name: 'gives back what was written, at every size around a page and a megabyte',
    async run(sh) {
      const out = await sh(`
        for size in 0 1 4095 4096 4097 1048575 1048576 1048577 3145729; do
          head -c $size /dev/urandom > ../source.$$; cp ../source.$$ f; cmp ../source.$$ f; stat -c %s f
        done; rm ../source.$$`);
      assert.equal(out, '0\n1\n4095\n4096\n4097\n1048575\n1048576\n1048577\n3145729');
    },
  },
  {
    name: 'writes in the middle, behind the end, and reads zeros from the gap',
    async run(sh) {
      const out = await sh(`
        printf 0123456789 > f
        printf ab | dd of=f bs=1 seek=4 conv=notrunc status=none
        printf z | dd of=f bs=1 seek=12 conv=notrunc status=none
        od -An -c f; stat -c %s f`);
      assert.equal(out.replace(/ +/g, ' '), ' 0 1 2 3 a b 6 7 8 9 \\0 \\0 z\n13');
    },
  },
  {
    name: 'appends of four processes at once all arrive',
    async run(sh) {
      const out = await sh(`
        for i in 1 2 3 4; do (for n in $(seq 50); do echo "$i $n" >> f; done) & done; wait
        wc -l < f; sort -u f | wc -l`);
      assert.equal(out, '200\n200');
    },
  },
  {
    name: 'truncates down, up with zeros, and by O_TRUNC',
    async run(sh) {
      const out = await sh(`
        printf 0123456789 > f; truncate -s 4 f; truncate -s 6 f; od -An -c f; stat -c %s f
        truncate -s 5000 f; truncate -s 4 f; truncate -s 8192 f; tail -c +5 f | tr -d '\\000' | wc -c
        printf x > f; cat f; echo; stat -c %s f`);
      assert.equal(out.replace(/ +/g, ' '), ' 0 1 2 3 \\0 \\0\n6\n0\nx\n1');
    },
  },
  {
    name: 'an open file survives its unlink and the rename of another over it',
    async run(sh) {
      const out = await sh(`
        echo first > a; exec 3>> a 4< a; rm a; echo more >&3; test ! -e a; cat <&4; exec 3>&- 4<&-
        echo old > b; exec 3< b; echo new > c; mv c b; cat <&3; cat b`);
      assert.equal(out, 'first\nmore\nold\nnew');
    },
  },
  {
    name: 'an unlinked open file has no links and leaves no name behind',
    needs: ['native-unlink'],
    async run(sh) {
      const out = await sh(`
        mkdir d; echo x > d/a; exec 3< d/a; rm d/a; stat -L -c '%h %s' /proc/self/fd/3; ls -A d; rmdir d; cat <&3`);
      assert.equal(out, '0 2\nx');
    },
  },
  {
    name: 'stores through a shared mapping reach read, and writes reach the mapping',
    async run(sh) {
      const out = await sh(`
        truncate -s 65536 f; sys mmap-write f 5000 hello
        dd if=f bs=1 skip=5000 count=5 status=none; echo
        printf world | dd of=f bs=1 seek=9000 conv=notrunc status=none; sys mmap-read f 9000 5`);
      assert.equal(out, 'ok\nhello\nworld');
    },
  },
  {
    name: 'a sparse file takes only the blocks that were written',
    async run(sh) {
      const out = await sh(`
        printf x | dd of=f bs=1 seek=1073741824 status=none
        stat -c %s f; test $(du -k f | cut -f1) -lt 200; head -c 1000000 f | tr -d '\\000' | wc -c`);
      assert.equal(out, '1073741825\n0');
    },
  },
  {
    name: 'allocates, keeps the size on demand, and punches holes',
    needs: ['fallocate'],
    async run(sh) {
      const out = await sh(`
        fallocate -l 100000 f; stat -c %s f; test $(du -k f | cut -f1) -ge 96
        fallocate -n -o 100000 -l 100000 f; stat -c %s f
        head -c 20000 /dev/zero | tr '\\000' x > g; fallocate -p -o 4096 -l 8192 g
        stat -c %s g; tr -d '\\000' < g | wc -c; sys fallocate g 0 0 0`);
      assert.equal(out, '100000\n100000\n20000\n11808\nerrno 22');
    },
  },
  {
    name: 'finds data and holes',
    needs: ['hole-seeking'],
    async run(sh) {
      const out = await sh(`
        truncate -s 1048576 f; printf x | dd of=f bs=1 seek=524288 conv=notrunc status=none; sync f
        sys seek f 0 3; sys seek f 0 4; sys seek f 524288 4; sys seek f 600000 3; sys seek f 2000000 3`);
      const [data, hole, after, ...errors] = out.split('\n');
      assert.equal(data, '524288');
      assert.equal(hole, '0');
      assert.ok(Number(after) > 524288 && Number(after) <= 1048576);
      assert.deepEqual(errors, ['errno 6', 'errno 6']);
    },
  },
  {
    name: 'copies a range from file to file',
    needs: ['copy-file-range'],
    async run(sh) {
      const out = await sh(`
        seq 10000 > a; sys copy a 1000 b 500 20000; stat -c %s b
        tail -c +1001 a | head -c 20000 > x; tail -c +501 b > y; cmp x y; sys copy a 100000000 b 0 10; cp a c; cmp a c`);
      assert.equal(out, '20000\n20500\n0');
    },
  },
  {
    name: 'fcntl locks keep writers of one range apart and leave others alone',
    needs: ['locks'],
    async run(sh) {
      const out = await sh(`
        echo x > f
        sys lock f write 10 10 try sh -c 'perl -e "$SYSCALLS_PERL" -- lock f write 15 1 try true
          perl -e "$SYSCALLS_PERL" -- lock f write 20 5 try echo beside
          perl -e "$SYSCALLS_PERL" -- getlk f 0 0; perl -e "$SYSCALLS_PERL" -- getlk f 0 10'
        sys lock f write 0 0 try echo again; sys getlk f 0 0`);
      assert.equal(out, 'errno 11\nbeside\nwrite 10 10\nfree\nagain\nfree');
    },
  },
  {
    name: 'readers share an fcntl lock, and a waiting writer gets it after them',
    needs: ['locks'],
    async run(sh) {
      const out = await sh(`
        echo x > f; mkfifo go
        sys lock f read 0 0 try sh -c 'perl -e "$SYSCALLS_PERL" -- lock f read 0 0 try echo shared; echo held >&2; cat go' 2> held &
        while ! grep -q held held; do :; done
        sys lock f write 0 0 wait echo written & echo first > go; wait`);
      assert.equal(out, 'shared\nfirst\nwritten');
    },
  },
  {
    name: 'flock excludes, shares, and is freed when its holder ends',
    needs: ['locks'],
    async run(sh) {
      const out = await sh(`
        flock f sh -c 'flock -n f true || echo excluded'
        flock -s f sh -c 'flock -s -n f echo shared; flock -n -x f true || echo excluded'
        flock -n f echo free
        flock f sh -c 'kill -9 $PPID' || true; flock -w 5 f echo freed`);
      assert.equal(out, 'excluded\nshared\nexcluded\nfree\nfreed');
    },
  },
  {
    name: 'a file without a name can be written and then given one',
    needs: ['tmpfile'],
    async run(sh) {
      assert.equal(await sh('sys tmpfile . hello g; ls -A; cat g; echo; stat -c %h g'), 'ok\ng\nhello\n1');
    },
  },
  {
    name: 'fsync and fdatasync of files and directories succeed',
    async run(sh) {
      assert.equal(await sh('echo x > f; sync f; sync -d f; mkdir d; sync d; sync -f d; cat f'), 'x');
    },
  },
];
