import { FrameType } from '../../proto/frame-header.js';
import type { FrameLink } from './chunk-connections.js';

/** Links on which somebody waits are looked at so often. */
export const LINK_CHECK_INTERVAL_MS = 300;
/**
 * A link on which nothing moves for so long while somebody waits is broken off. TCP itself would repeat what was lost
 * after ever longer pauses: after a cut of the network a request would wait for as long again.
 */
export const LINK_SILENCE_MS = 2_500;

interface Watched {
  /** When it was first seen silent; undefined: something moves, or nobody waits. */
  silentSince: number | undefined;
  heardAt: number;
  queuedBytes: number;
}

/** Finds links that have gone silent: a server whose answer takes long is asked whether it is there. */
export class LinkWatch {
  readonly #watched = new WeakMap<FrameLink, Watched>();
  #checkedAt = Number.NEGATIVE_INFINITY;

  /** To be called every LINK_CHECK_INTERVAL_MS with all links. @param now monotonic milliseconds */
  check(links: Iterable<FrameLink>, now: number): void {
    // After a pause of this process, what the servers said meanwhile still waits in the sockets.
    const paused = now - this.#checkedAt > 2 * LINK_CHECK_INTERVAL_MS;
    this.#checkedAt = now;
    for (const link of links) {
      if (link.ended) continue;
      const { lastHeardAt, queuedBytes } = link;
      const before = this.#watched.get(link);
      const moved = before?.heardAt !== lastHeardAt || before.queuedBytes > queuedBytes;
      const silentSince = moved || paused || link.inFlight === 0 ? undefined : (before.silentSince ?? now);
      this.#watched.set(link, { silentSince, heardAt: lastHeardAt, queuedBytes });
      if (silentSince === undefined) continue;
      if (now - silentSince >= LINK_SILENCE_MS) link.close(`silent for ${LINK_SILENCE_MS} ms`);
      // Answered by whoever lives, whatever becomes of the requests; its failure is the link's end.
      else if (before?.silentSince === undefined)
        link.call({ type: FrameType.PING }, undefined, 0).catch(() => {});
    }
  }
}
