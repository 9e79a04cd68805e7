/** What a program does that a LineChild has started: it prints JSON lines, and lives no longer than who started it. */

export function say(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** Calls `stop` when standard input ends; when nobody reads what is printed, the process ends at once. */
export function onInputEnd(stop: () => void): void {
  process.stdin.on('end', stop).resume();
  process.stdout.on('error', () => process.exit(0));
}
