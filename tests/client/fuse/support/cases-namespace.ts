import assert from 'node:assert/strict';
import type { MountCase } from './cases.js';

/** Names, directories and links. */
export const NAMESPACE_CASES: readonly MountCase[] = [
  {
    name: 'makes and removes trees, and refuses to remove a directory that is not empty',
    async run(sh) {
      const out = await sh(`
        mkdir -p a/b/c; echo x > a/b/c/f; rmdir a/b 2>&1 | grep -o 'not empty'; stat -c %h a a/b
        find . | sort; rm -r a; ls -A; rmdir a 2>&1 | grep -o 'No such file'`);
      assert.equal(out, 'not empty\n3\n3\n.\n./a\n./a/b\n./a/b/c\n./a/b/c/f\nNo such file');
    },
  },
  {
    name: 'O_EXCL lets one creator win',
    async run(sh) {
      const out = await sh(`
        for i in 1 2 3 4 5 6 7 8; do (set -C; echo $i > f) 2>/dev/null && echo won & done; wait; true`);
      assert.equal(out, 'won');
    },
  },
  {
    name: 'renames replace files and empty directories, and refuse the rest',
    async run(sh) {
      const out = await sh(`
        r() { perl -e 'rename($ARGV[0], $ARGV[1]) ? print "ok\n" : print $!+0, "\n"' "$@"; }
        echo a > a; echo b > b; mkdir d e e/x; mkdir empty
        r a b; cat b; r d empty; ls -d empty; r empty e; r empty b; r b e; r e e/x/y; r nothing z; r b b
        mkdir from to; echo 1 > from/f; r from/f to/f; ls from to; stat -c %h from to
        mkdir from/sub; r from/sub to/sub; stat -c %h from to`);
      const lines = out.split('\n');
      assert.deepEqual(lines.slice(0, 10), ['ok', 'a', 'ok', 'empty', '39', '20', '21', '22', '2', 'ok']);
      assert.deepEqual(lines.slice(10), ['ok', 'from:', '', 'to:', 'f', '2', '2', 'ok', '2', '3']);
    },
  },
  {
    name: 'RENAME_NOREPLACE and RENAME_EXCHANGE',
    needs: ['rename-flags'],
    async run(sh) {
      const out = await sh(`
        echo a > a; echo b > b; mkdir d; echo in > d/f
        sys renameat2 a b 1; sys renameat2 a c 1; cat c; sys renameat2 c b 2; cat b c
        sys renameat2 b d 2; cat d; cat b/f; sys renameat2 b nothing 2`);
      assert.equal(out, 'errno 17\nok\na\nok\na\nb\nok\na\nin\nerrno 2');
    },
  },
  {
    name: 'hard links share one inode, in any directory',
    async run(sh) {
      const out = await sh(`
        echo x > a; mkdir d; ln a d/b; stat -c %h a d/b; test a -ef d/b
        echo y >> d/b; cat a; rm a; stat -c %h d/b; cat d/b; ln d/b d/b 2>&1 | grep -o 'File exists'`);
      assert.equal(out, '2\n2\nx\ny\n1\nx\ny\nFile exists');
    },
  },
  {
    name: 'symbolic links keep their text, up to 4,095 bytes, and dangle',
    async run(sh) {
      const out = await sh(`
        ln -s 'no where/at all' l; readlink l; stat -c '%s %F' l; cat l 2>&1 | grep -o 'No such'
        long=$(head -c 4095 /dev/zero | tr '\\000' x); ln -s $long m; readlink m | wc -c
        mkdir d; echo in > d/f; ln -s d e; cat e/f; ln -s loop loop; cat loop 2>&1 | grep -o 'Too many levels'`);
      assert.equal(out, 'no where/at all\n15 symbolic link\nNo such\n4096\nin\nToo many levels');
    },
  },
  {
    name: 'names may have 255 bytes, newlines, spaces and leading dashes, and no more than 255 bytes',
    async run(sh) {
      const out = await sh(`
        long=$(head -c 255 /dev/zero | tr '\\000' n); echo x > $long; ls | wc -c
        echo x > \${long}n 2>/dev/null || echo refused; rm $long
        touch 'a
b' ' ' -- -x; for f in *; do printf '<%s>' "$f"; done; echo; rm -- * ; ls -A | wc -l`);
      assert.equal(out, '256\nrefused\n< ><-x><a\nb>\n0');
    },
  },
  {
    name: 'names in UTF-8 come back as they were given',
    async run(sh) {
      const out = await sh("echo x > 'gr\u00fc\u00dfe \u65e5\u672c \ud83d\ude80'; ls; cat gr*");
      assert.equal(Buffer.from(out, 'latin1').toString('utf8'), 'grüße 日本 🚀\nx');
    },
  },
  {
    name: 'names are bytes, not text',
    needs: ['byte-names'],
    async run(sh) {
      const out = await sh(`
        name=$(printf 'a\\377\\376\\001b'); echo x > "$name"; ls | od -An -tx1; cat "$name"
        mv "$name" "$(printf '\\200')"; ls | od -An -tx1; ln -s "$name" l; readlink -n l | od -An -tx1`);
      assert.equal(out, ' 61 ff fe 01 62 0a\nx\n 80 0a\n 61 ff fe 01 62');
    },
  },
  {
    name: 'lists 1,500 entries once each',
    async run(sh) {
      const out = await sh(
        'mkdir d; cd d; seq 1500 | xargs touch; ls | wc -l; ls | sort -u | wc -l; find . | wc -l',
      );
      assert.equal(out, '1500\n1500\n1501');
    },
  },
  {
    name: 'a listing goes on where it was, after seeks and while entries go',
    needs: ['stable-directory-offsets'],
    async run(sh) {
      const out = await sh(`
        mkdir d; cd d; seq 10000 | xargs mkdir; sys list-by-seeks .
        perl -e 'opendir(my $d, "."); my $n; while (defined(my $f = readdir($d))) { next if $f =~ /^\\./; $n++; rmdir $f }
          print "$n\n"'
        ls -A | wc -l`);
      assert.equal(out, '10002 10002\n10000\n0');
    },
  },
  {
    name: 'fifos, device nodes and sockets can be made and told apart',
    async run(sh) {
      const out = await sh(`
        mkfifo p; mknod c c 1 3; mknod b b 259 1000
        perl -e 'use Socket; socket(my $s, PF_UNIX, SOCK_STREAM, 0); bind($s, sockaddr_un("s")) or die $!'
        stat -c '%n %F %t,%T' b c p s; (echo through > p &); cat p; echo gone > c`);
      assert.equal(
        out,
        'b block special file 103,3e8\nc character special file 1,3\np fifo 0,0\ns socket 0,0\nthrough',
      );
    },
  },
];
