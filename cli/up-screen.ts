import type { ClusterStatus } from './cluster-status.js';
import { formatBytes, oneLine } from './output.js';

/** A live status line on a terminal, one line an event otherwise. */
export class Screen {
  readonly #json: boolean;
  readonly #live: boolean;

  constructor(json: boolean) {
    this.#json = json;
    this.#live = process.stdout.isTTY === true && !json;
  }

  ready(mountPoint: string): void {
    this.#print({ event: 'ready', mountPoint }, `ready: ${mountPoint}`);
  }

  event(name: string, line: string): void {
    this.#print({ event: 'state', name, text: oneLine(line) }, `${name}: ${line}`);
  }

  status(status: ClusterStatus | undefined, where: string): void {
    if (!this.#live) return;
    const text = status ? statusLine(status) : 'no metaserver answers';
    process.stdout.write(`\r\u001b[K${where} | ${text}`.slice(0, (process.stdout.columns ?? 80) + 4));
  }

  close(): void {
    if (this.#live) process.stdout.write('\r\u001b[K');
  }

  #print(value: object, line: string): void {
    const clear = this.#live ? '\r\u001b[K' : '';
    process.stdout.write(`${clear}${this.#json ? JSON.stringify(value) : line}\n`);
  }
}

function statusLine(status: ClusterStatus): string {
  const { leader, pgs, capacity } = status;
  const alive = status.chunkservers.filter((one) => one.alive).length;
  return [
    status.healthy ? 'healthy' : (status.problems[0] ?? ''),
    leader ? `leader ${leader.id}, term ${status.term}` : 'no leader',
    `${alive} chunkservers`,
    `PGs ${pgs.inSync}/${pgs.total}`,
    `${formatBytes(capacity.usedBytes)} used`,
  ].join(' | ');
}
