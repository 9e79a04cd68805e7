/**
 * System calls that no standard tool makes, for tests: a Perl program (perl-base is part of every Debian), given to
 * scripts as the function `sys`. Prints the result; on failure prints `errno N` and ends with 0, so that scripts
 * can compare it.
 */
export const SYSCALLS_PERL = `
use strict; use warnings; use Fcntl; use IO::Handle;
STDOUT->autoflush(1);
my $arm = (qx(uname -m) =~ /aarch64/) ? 1 : 0;
my %nr = (setxattr => [188, 5], getxattr => [191, 8], listxattr => [194, 11], removexattr => [197, 14],
  utimensat => [280, 88], fallocate => [285, 47], renameat2 => [316, 276], copy_file_range => [326, 285],
  linkat => [265, 37], mmap => [9, 222], msync => [26, 227], munmap => [11, 215], read => [0, 63], write => [1, 64]);
sub nr { return $nr{$_[0]}[$arm]; }
sub check { my ($result) = @_; if ($result == -1) { print "errno ", $! + 0, "\\n"; exit 0 } return $result; }
sub opened { my ($path, $flags) = @_; sysopen(my $file, $path, $flags) or check(-1); return $file; }
my $AT_FDCWD = -100;
my ($op, @arg) = @ARGV;
if ($op eq 'setxattr') {
  my ($path, $name, $value, $flags) = @arg;
  check(syscall(nr('setxattr'), $path, $name, $value, length $value, ($flags // 0) + 0)); print "ok\\n";
} elsif ($op eq 'getxattr') {
  my ($path, $name) = @arg; my $buf = "\\0" x 65536;
  my $n = check(syscall(nr('getxattr'), $path, $name, $buf, 65536)); print substr($buf, 0, $n), "\\n";
} elsif ($op eq 'getxattr-size') {
  my ($path, $name, $size) = @arg; my $buf = "\\0" x 65536;
  print check(syscall(nr('getxattr'), $path, $name, $buf, $size + 0)), "\\n";
} elsif ($op eq 'listxattr') {
  my ($path) = @arg; my $buf = "\\0" x 65536;
  my $n = check(syscall(nr('listxattr'), $path, $buf, 65536));
  print join(' ', sort grep { /^user/ } split(/\\0/, substr($buf, 0, $n))), "\\n";
} elsif ($op eq 'removexattr') {
  my ($path, $name) = @arg; check(syscall(nr('removexattr'), $path, $name)); print "ok\\n";
} elsif ($op eq 'renameat2') {
  my ($from, $to, $flags) = @arg;
  check(syscall(nr('renameat2'), $AT_FDCWD, $from, $AT_FDCWD, $to, $flags + 0)); print "ok\\n";
} elsif ($op eq 'utimensat') {
  my ($path, @times) = @arg; my $packed = pack('q4', @times);
  check(syscall(nr('utimensat'), $AT_FDCWD, $path, $packed, 0)); print "ok\\n";
} elsif ($op eq 'seek') {
  my ($path, $offset, $whence) = @arg; my $file = opened($path, O_RDONLY);
  my $at = sysseek($file, $offset, $whence); check(-1) unless defined $at; print $at + 0, "\\n";
} elsif ($op eq 'fallocate') {
  my ($path, $mode, $offset, $length) = @arg; my $file = opened($path, O_RDWR);
  check(syscall(nr('fallocate'), fileno($file), $mode + 0, $offset + 0, $length + 0)); print "ok\\n";
} elsif ($op eq 'copy') {
  my ($from, $offset, $to, $to_offset, $length) = @arg;
  my $in = opened($from, O_RDONLY); my $out = opened($to, O_RDWR | O_CREAT);
  my ($a, $b) = (pack('q', $offset), pack('q', $to_offset));
  print check(syscall(nr('copy_file_range'), fileno($in), $a, fileno($out), $b, $length + 0, 0)), "\\n";
} elsif ($op eq 'lock') {
  # lock PATH read|write START LENGTH try|wait COMMAND...: runs the command under an fcntl lock.
  my ($path, $type, $start, $length, $how, @command) = @arg; my $file = opened($path, O_RDWR);
  my $lock = pack('s s x4 q q l x4', $type eq 'read' ? F_RDLCK : F_WRLCK, 0, $start, $length, 0);
  fcntl($file, $how eq 'wait' ? F_SETLKW : F_SETLK, $lock) or check(-1);
  system(@command) == 0 or exit 1;
} elsif ($op eq 'getlk') {
  my ($path, $start, $length) = @arg; my $file = opened($path, O_RDWR);
  my $lock = pack('s s x4 q q l x4', F_WRLCK, 0, $start, $length, 0);
  fcntl($file, F_GETLK, $lock) or check(-1);
  my ($type, undef, $from, $len) = unpack('s s x4 q q l', $lock);
  print $type == F_UNLCK ? "free\\n" : ($type == F_RDLCK ? 'read' : 'write') . " $from $len\\n";
} elsif ($op eq 'tmpfile') {
  # tmpfile DIR TEXT LINK: a nameless file, written, then given a name.
  my ($dir, $text, $link) = @arg; my $file = opened($dir, O_RDWR | 0x410000);
  syswrite($file, $text);
  check(syscall(nr('linkat'), $AT_FDCWD, '/proc/self/fd/' . fileno($file), $AT_FDCWD, $link, 0x400)); print "ok\\n";
} elsif ($op eq 'mmap-write') {
  # mmap-write PATH OFFSET TEXT: stores text through a shared mapping of the first 64 KiB.
  my ($path, $offset, $text) = @arg; my $file = opened($path, O_RDWR);
  my $at = check(syscall(nr('mmap'), 0, 65536, 3, 1, fileno($file), 0));
  pipe(my $from, my $to); syswrite($to, $text);
  check(syscall(nr('read'), fileno($from), $at + $offset, length $text));
  check(syscall(nr('msync'), $at, 65536, 4)); check(syscall(nr('munmap'), $at, 65536)); print "ok\\n";
} elsif ($op eq 'mmap-read') {
  my ($path, $offset, $length) = @arg; my $file = opened($path, O_RDONLY);
  my $at = check(syscall(nr('mmap'), 0, 65536, 1, 1, fileno($file), 0));
  check(syscall(nr('write'), 1, $at + $offset, $length + 0)); print "\\n";
} elsif ($op eq 'list-by-seeks') {
  # Reads a directory, going back to a remembered place after every 100th entry.
  my ($path) = @arg; opendir(my $dir, $path) or check(-1); my (%seen, $count);
  while (1) {
    my $place = telldir($dir); my $name = readdir($dir); last unless defined $name;
    if (++$count % 100 == 0) { seekdir($dir, $place); readdir($dir) eq $name or die "another entry at $place"; }
    die "twice: $name" if $seen{$name}++;
  }
  rewinddir($dir); my $again = () = readdir($dir);
  print scalar(keys %seen), " $again\\n";
} else { die "unknown call $op" }
`;
