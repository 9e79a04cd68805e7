/** Exit codes of every command: 0 done, 1 it could not be done, 2 bad input or environment. */
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

/** An error that a person can act on: one line that says what, where, and what to do. */
export class CliError extends Error {
  override name = 'CliError';
  readonly exitCode: number;
  /** With --json, beside the message. */
  readonly fields: object;
  constructor(message: string, exitCode = EXIT_USAGE, fields: object = {}) {
    super(message);
    this.exitCode = exitCode;
    this.fields = fields;
  }
}

/** One JSON value on standard output. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/** One line for an event of a command that goes on: `value` for those who asked for JSON, `line` for people. */
export function printEvent(json: boolean | undefined, value: object, line: string): void {
  printLine(json ? JSON.stringify(value) : line);
}

/** One line on standard output. */
export function printLine(line: string): void {
  process.stdout.write(`${line}\n`);
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** Bytes for people: 3 significant digits, binary units. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${UNITS[unit]}`;
}

/** Rows of cells as aligned columns. */
export function formatTable(rows: string[][]): string {
  const widths: number[] = [];
  for (const row of rows)
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length);
    });
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** The message of anything thrown, on one line. */
export function oneLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replaceAll(/\s*\n\s*/g, ' ');
}
