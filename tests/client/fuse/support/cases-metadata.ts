import assert from 'node:assert/strict';
import type { MountCase } from './cases.js';

/** As user 65534, without any group of root's. */
const NOBODY = 'setpriv --reuid 65534 --regid 65534 --clear-groups';
const UTIME_OMIT = 0x3ffffffe;
const UTIME_NOW = 0x3fffffff;

/** Attributes, times, owners and extended attributes. */
export const METADATA_CASES: readonly MountCase[] = [
  {
    name: 'modes and the umask are kept to the bit',
    async run(sh) {
      const out = await sh(`
        umask 027; echo x > f; mkdir d; mkfifo p; stat -c %a f d p
        chmod 4751 f; chmod 1777 d; stat -c %a f d; umask 0; mkdir -m 2755 e; echo x > g; stat -c %a e g`);
      assert.equal(out, '640\n750\n640\n4751\n1777\n2755\n666');
    },
  },
  {
    name: 'times are kept to the nanosecond, before 1970 and after 2038 too',
    needs: ['precise-times'],
    async run(sh) {
      const out = await sh(`
        echo x > f; sys utimensat f 1 123456789 2 987654321; stat -c '%.9X %.9Y' f
        sys utimensat f -1 999999999 -86400 1; stat -c '%.9X %.9Y' f
        touch -d '2200-01-01 00:00:00.5' f; stat -c '%.9X %.9Y' f`);
      assert.equal(
        out,
        'ok\n1.123456789 2.987654321\nok\n-0.000000001 -86399.999999999\n7258118400.500000000 7258118400.500000000',
      );
    },
  },
  {
    name: 'times are kept to the second after 1970',
    async run(sh) {
      assert.equal(await sh("echo x > f; touch -d '2001-02-03 04:05:06' f; stat -c %Y f"), '981173106');
    },
  },
  {
    name: 'one of the two times can be left as it is, or set to now',
    needs: ['omitted-times'],
    async run(sh) {
      const out = await sh(`
        echo x > f; sys utimensat f 1000 0 2000 0
        touch -a -d @3000 f; stat -c '%X %Y' f; touch -m -d @4000 f; stat -c '%X %Y' f
        sys utimensat f 0 ${UTIME_OMIT} 5 5; stat -c '%X %Y' f
        sys utimensat f 0 ${UTIME_NOW} 0 ${UTIME_OMIT}; stat -c %Y f; test $(stat -c %X f) -gt 1600000000`);
      assert.equal(out, 'ok\n3000 2000\n3000 4000\nok\n3000 5\nok\n5');
    },
  },
  {
    name: 'changes move ctime, and writes move mtime',
    needs: ['omitted-times'],
    async run(sh) {
      const out = await sh(`
        echo x > f; touch -d @1000 f; before=$(stat -c %.9Z f)
        chmod 600 f; stat -c %Y f; after=$(stat -c %.9Z f); test "$before" != "$after" && echo moved
        echo y >> f; test $(stat -c %Y f) -gt 1600000000 && echo written
        touch -d @1000 .; echo z > g; test $(stat -c %Y .) -gt 1600000000 && echo entered`);
      assert.equal(out, '1000\nmoved\nwritten\nentered');
    },
  },
  {
    name: 'chown sets owner and group, and takes setuid and setgid away',
    async run(sh) {
      const out = await sh(`
        echo x > f; chmod 6755 f; chown 1000:2000 f; stat -c '%u %g %a' f
        chown 5 f; stat -c '%u %g' f; chown :6 f; stat -c '%u %g' f; ln -s f l; chown -h 7:8 l; stat -c '%u %g' l f`);
      assert.equal(out, '1000 2000 755\n5 2000\n5 6\n7 8\n5 6');
    },
  },
  {
    name: 'a write or truncate by another user takes setuid and setgid away, one by root does not',
    needs: ['caller-identity'],
    async run(sh) {
      const out = await sh(`
        make() { echo x > f; chown 1:1 f; chmod 6777 f; }
        make; ${NOBODY} sh -c 'echo y >> f'; stat -c %a f; make; ${NOBODY} truncate -s 0 f; stat -c %a f
        make; ${NOBODY} sh -c ': > f'; stat -c %a f; make; echo y >> f; stat -c %a f`);
      assert.equal(out, '777\n777\n777\n6777');
    },
  },
  {
    name: 'new files belong to who makes them, in a setgid directory to its group',
    needs: ['caller-identity'],
    async run(sh) {
      const out = await sh(`
        chmod 777 .; ${NOBODY} sh -c 'echo x > f; mkdir d; ln -s f l; mkfifo p'; stat -c '%u %g' f d l p
        mkdir s; chgrp 1234 s; chmod 2777 s; ${NOBODY} sh -c 'umask 22; echo x > s/f; mkdir s/d'
        stat -c '%u %g %a' s/f s/d`);
      const own = '65534 65534\n';
      assert.equal(out, `${own.repeat(4)}65534 1234 644\n65534 1234 2755`);
    },
  },
  {
    name: 'permissions refuse another user what they must',
    needs: ['caller-identity'],
    async run(sh) {
      const out = await sh(`
        chmod 755 .; echo secret > f; chmod 600 f; mkdir d; echo x > d/in; chmod 700 d; mkdir t; chmod 1777 t; echo x > t/f
        try() { ${NOBODY} sh -c "$1" 2>&1 > /dev/null | grep -o 'ermission denied\\|not permitted'; }
        try 'cat f'; try 'echo y > f'; try 'cat d/in'; try 'echo x > new'; try 'chmod 777 f'; try 'chown 65534 f'
        try 'rm -f t/f'; try 'mv t/f t/g'; cat f`);
      const denied = 'ermission denied';
      const forbidden = 'not permitted';
      assert.deepEqual(out.split('\n'), [
        denied,
        denied,
        denied,
        denied,
        forbidden,
        forbidden,
        forbidden,
        forbidden,
        'secret',
      ]);
    },
  },
  {
    name: 'extended attributes are set, replaced, listed and removed',
    async run(sh) {
      const out = await sh(`
        echo x > f; sys setxattr f user.a one; sys setxattr f user.b ''; sys getxattr f user.a; sys getxattr f user.b
        sys listxattr f; sys setxattr f user.a two 1; sys setxattr f user.c two 2; sys setxattr f user.a two 2
        sys getxattr f user.a; sys getxattr-size f user.a 0; sys getxattr-size f user.a 2
        sys removexattr f user.a; sys removexattr f user.a; sys getxattr f user.a; sys listxattr f
        mkdir d; sys setxattr d user.d value; sys getxattr d user.d`);
      const rest = 'two\n3\nerrno 34\nok\nerrno 61\nerrno 61\nuser.b\nok\nvalue';
      assert.equal(out, `ok\nok\none\n\nuser.a user.b\nerrno 17\nerrno 61\nok\n${rest}`);
    },
  },
  {
    name: 'statfs tells sizes that add up',
    async run(sh) {
      const [size, blocks, free, names] = (await sh("stat -f -c '%S\n%b\n%f\n%l' .")).split('\n').map(Number);
      assert.ok(size! >= 512 && blocks! > 0 && free! > 0 && free! <= blocks!);
      assert.equal(names, 255);
    },
  },
];
