import type { Logger } from '../../common/logger.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import { FRAME_FLAG_END, type FrameFields, FrameType } from '../../proto/frame-header.js';
import type { Frame, FrameReply } from '../../proto/frames.js';
import { type CheckedPage, type ChunkFinding, ReplicaState } from '../../proto/gen/cluster.js';
import type { PgCore } from '../pg/pg-core.js';
import { END_OF_KEYS } from '../pg/recovery-page.js';
import { compareKeys, type LinkSide, sameVersion } from '../pg/types.js';
import { type ChunkKey, type ChunkStore, compareVersions, type Version } from '../store/chunk-store.js';
import { type ChunkReport, inspect, type PageLimits, packReports, unpackReports } from './chunk-report.js';
import type { PeerLink } from './links.js';
import type { Correction, Repair } from './repair.js';
import { judge, type Verdict } from './verdict.js';

/** One page of a group. Its contents are in memory, at each replica. */
export const AUDIT_PAGE: PageLimits = { chunks: 256, bytes: 8 * 1024 * 1024 };
/** A replica that has more than the primary answers in parts. */
const REPLICA_PAGE: PageLimits = { chunks: 1024, bytes: 32 * 1024 * 1024 };
const CHECK_TIMEOUT_MS = 20_000;
const REPAIR_TIMEOUT_MS = 20_000;
/** Behind every key that a frame can carry. */
const LAST_INO = 2 ** 48;
const LAST_CHUNK = 0xffff_ffff;

export interface AuditDeps {
  self: number;
  store: ChunkStore;
  log: Logger;
  group(pg: number): PgCore | undefined;
  link(server: number, side: LinkSide): PeerLink | undefined;
  repair: Repair;
}

export interface AuditRequest {
  after: ChunkKey;
  /** Read and compare contents too. */
  contents: boolean;
  repair: boolean;
}

/** What the replicas have in one page, all behind the same operation of the group. */
interface Compared {
  pg: number;
  epoch: number;
  last: Version;
  /** Keys up to this one were compared. */
  end: ChunkKey;
  reports: Map<number, ChunkReport[]>;
}

/**
 * Compares a group's replicas, page by page, while the group serves. The primary looks at its own chunks and asks the others
 * in the same turn: over the ordered links each answers behind the very same operation, so a difference is never a write on
 * its way. A replica that says otherwise (it is about to be dropped) is left out.
 */
export class Audit {
  readonly #deps: AuditDeps;

  constructor(deps: AuditDeps) {
    this.#deps = deps;
  }

  /** @throws HoldfastError NOT_PRIMARY, UNAVAILABLE: not the group's active primary now */
  async page(pg: number, request: AuditRequest): Promise<CheckedPage> {
    const compared = await this.#compare(pg, request);
    const { reports, last, end } = compared;
    const own = reports.get(this.#deps.self) as ChunkReport[];
    const findings: ChunkFinding[] = [];
    for (const [key, held] of byKey(compared)) {
      const verdict = judge(held);
      if (verdict.wrong.size > 0)
        findings.push(...(await this.#settle(compared, key, held, verdict, request)));
    }
    let bytes = 0;
    for (const list of reports.values()) for (const report of list) bytes += report.bytes;
    const finished = end === END_OF_KEYS;
    return {
      end: finished,
      lastIno: finished ? 0 : end.ino,
      lastChunk: finished ? 0 : end.chunk,
      inodes: inodesOf(reports),
      findings,
      chunks: own.length,
      bytes,
      versionEpoch: last.epoch,
      versionSeq: last.seq,
      replicas: reports.size,
    };
  }

  /** Whether no chunk of the inode, from `chunk` on, was touched by an operation behind `version`. */
  unchangedSince(pg: number, ino: number, chunk: number, version: Version): boolean {
    for (let after: ChunkKey = { ino: ino - 1, chunk: LAST_CHUNK }; ; ) {
      const page = this.#deps.store.list(pg, after.ino === 0 ? undefined : after, AUDIT_PAGE.chunks);
      for (const info of page) {
        if (info.ino > ino) return true;
        const concerned = info.ino === ino && info.chunk >= chunk;
        if (concerned && compareVersions(info.version, version) > 0) return false;
      }
      if (page.length < AUDIT_PAGE.chunks) return true;
      after = page.at(-1) as ChunkKey;
    }
  }

  async #compare(pg: number, { after, contents }: AuditRequest): Promise<Compared> {
    const { self, store, group } = this.#deps;
    const core = group(pg);
    if (!core?.isPrimary) throw new HoldfastError('NOT_PRIMARY');
    if (!core.active) throw new HoldfastError('UNAVAILABLE', 'the group is not active');
    const epoch = core.map?.epoch ?? 0;
    const { last } = core;
    // No await up to here, nor between own look and questions: all are behind `last`.
    const own = inspect(store, pg, { after, until: END_OF_KEYS }, AUDIT_PAGE, contents);
    const until = own.last ?? END_OF_KEYS;
    const asked = core.inSyncPeers.map((server) => this.#ask(server, pg, epoch, after, until, contents));
    const reports = new Map([[self, await own.reports]]);
    let end = until;
    for (const answer of await Promise.all(asked)) {
      if (!answer || !sameVersion(answer.last, last)) continue;
      reports.set(answer.server, answer.reports);
      if (answer.end && compareKeys(answer.end, end) < 0) end = answer.end;
    }
    for (const [server, list] of reports) {
      reports.set(
        server,
        list.filter((report) => compareKeys(report, end) <= 0),
      );
    }
    return { pg, epoch, last, end, reports };
  }

  /** @returns undefined when the replica did not answer */
  async #ask(
    server: number,
    pg: number,
    epoch: number,
    after: ChunkKey,
    until: ChunkKey,
    contents: boolean,
  ): Promise<
    { server: number; last: Version; end: ChunkKey | undefined; reports: ChunkReport[] } | undefined
  > {
    const fields = { type: FrameType.CHECK, pg, epoch, ...framed(after), offset: contents ? 1 : 0 };
    try {
      const { header, payload } = await this.#request(server, fields, packKey(until), CHECK_TIMEOUT_MS);
      const reports = unpackReports(payload);
      const complete = (header.flags & FRAME_FLAG_END) !== 0;
      const last = { epoch: header.versionEpoch, seq: header.versionSeq };
      return { server, last, end: complete ? undefined : reports.at(-1), reports };
    } catch (error) {
      this.#deps.log.debug({ pg, server, error: toHoldfastError(error).message }, 'replica not compared');
      return undefined;
    }
  }

  #request(
    server: number,
    fields: FrameFields & { type: FrameType },
    payload: Buffer,
    timeoutMs: number,
  ): Promise<Frame> {
    const link = this.#deps.link(server, 'out');
    if (!link) return Promise.reject(new HoldfastError('UNAVAILABLE', `server ${server} is not connected`));
    return new Promise((resolve, reject) => {
      link.request(fields, payload, timeoutMs, undefined, (error, reply) => {
        if (error) reject(error);
        else resolve(reply as Frame);
      });
    });
  }

  /** Reports what is wrong with one chunk, and repairs it where that is asked for and there is one right answer. */
  async #settle(
    compared: Compared,
    key: ChunkKey,
    held: ReadonlyMap<number, ChunkReport | undefined>,
    verdict: Verdict,
    request: AuditRequest,
  ): Promise<ChunkFinding[]> {
    const { self, log, repair } = this.#deps;
    const { pg } = compared;
    const repairable = verdict.right.length > 0;
    const findings: ChunkFinding[] = [];
    // The primary first: the others copy from it.
    const wrong = [...verdict.wrong].sort(([a], [b]) => Number(b === self) - Number(a === self));
    let source = verdict.right.includes(self);
    for (const [server, kind] of wrong) {
      repair.found++;
      log.warn({ pg, ino: key.ino, chunk: key.chunk, server, kind }, 'replicas differ');
      let repaired = false;
      if (request.repair && repairable && (server === self || source)) {
        const correction = { observed: held.get(server)?.version, right: verdict.truth?.version };
        repaired = await this.#correct(compared, key, server, verdict.right, correction);
        if (server === self) source = repaired;
      }
      findings.push({ ino: key.ino, chunk: key.chunk, server, kind, repairable, repaired });
    }
    return findings;
  }

  async #correct(
    { pg, epoch }: Compared,
    key: ChunkKey,
    server: number,
    right: readonly number[],
    correction: Correction,
  ): Promise<boolean> {
    const { self, repair, log } = this.#deps;
    try {
      if (server === self) await repair.correct({ pg, epoch, from: right, side: 'out' }, key, correction);
      else {
        const fields = { type: FrameType.REPAIR, pg, epoch, ino: key.ino, chunk: key.chunk };
        await this.#request(server, fields, packCorrection(correction), REPAIR_TIMEOUT_MS);
      }
      return true;
    } catch (error) {
      log.warn({ pg, ...key, server, error: toHoldfastError(error).message }, 'not repaired');
      return false;
    }
  }

  // ---- at a replica

  /** Answers CHECK or REPAIR of the group's primary. @throws HoldfastError NOT_PRIMARY, UNAVAILABLE, CORRUPT */
  serve({ header, payload }: Frame, from: number): Promise<FrameReply> {
    const core = this.#deps.group(header.pg);
    const inSync = core?.map?.replicas.filter(({ state }) => state === ReplicaState.REPLICA_IN_SYNC) ?? [];
    if (!core || inSync[0]?.server !== from || core.map?.epoch !== header.epoch) {
      throw new HoldfastError('NOT_PRIMARY');
    }
    if (!inSync.some(({ server }) => server === this.#deps.self)) throw new HoldfastError('UNAVAILABLE');
    return header.type === FrameType.CHECK
      ? this.#serveCheck(core, header, payload)
      : this.#serveRepair(header, payload, from);
  }

  async #serveCheck(core: PgCore, header: Frame['header'], payload: Buffer): Promise<FrameReply> {
    const range = { after: { ino: header.ino, chunk: header.chunk }, until: unpackKey(payload) };
    const { epoch, seq } = core.last;
    const inspection = inspect(this.#deps.store, core.id, range, REPLICA_PAGE, header.offset === 1);
    const flags = inspection.last ? 0 : FRAME_FLAG_END;
    const reports = await inspection.reports;
    return { fields: { versionEpoch: epoch, versionSeq: seq, flags }, payload: packReports(reports) };
  }

  async #serveRepair(header: Frame['header'], payload: Buffer, from: number): Promise<FrameReply> {
    const { pg, epoch, ino, chunk } = header;
    const source = { pg, epoch, from: [from], side: 'in' } as const;
    await this.#deps.repair.correct(source, { ino, chunk }, unpackCorrection(payload));
    return {};
  }
}

function* byKey({ reports }: Compared): Generator<[ChunkKey, Map<number, ChunkReport | undefined>]> {
  const chunks = new Map<string, { key: ChunkKey; held: Map<number, ChunkReport | undefined> }>();
  for (const [server, list] of reports) {
    for (const report of list) {
      const name = `${report.ino}/${report.chunk}`;
      let entry = chunks.get(name);
      if (!entry) {
        entry = { key: report, held: new Map([...reports.keys()].map((each) => [each, undefined])) };
        chunks.set(name, entry);
      }
      entry.held.set(server, report);
    }
  }
  for (const { key, held } of chunks.values()) yield [{ ino: key.ino, chunk: key.chunk }, held];
}

/** The inodes of a page, whichever replica has them, with the furthest end of their data. */
function inodesOf(reports: ReadonlyMap<number, ChunkReport[]>) {
  const inodes = new Map<number, { ino: number; lastChunk: number; lastEnd: number }>();
  for (const list of reports.values()) {
    for (const { ino, chunk, end } of list) {
      const known = inodes.get(ino);
      if (!known || chunk > known.lastChunk) inodes.set(ino, { ino, lastChunk: chunk, lastEnd: end });
      else if (chunk === known.lastChunk) known.lastEnd = Math.max(known.lastEnd, end);
    }
  }
  return [...inodes.values()].sort((a, b) => a.ino - b.ino);
}

function framed(key: ChunkKey): ChunkKey {
  return { ino: Math.min(key.ino, LAST_INO), chunk: key.chunk };
}

const KEY_BYTES = 12;

function packKey(key: ChunkKey): Buffer {
  const packed = Buffer.alloc(KEY_BYTES);
  packed.writeDoubleLE(key.ino, 0);
  packed.writeUInt32LE(key.chunk, 8);
  return packed;
}

function unpackKey(packed: Buffer): ChunkKey {
  if (packed.length !== KEY_BYTES) throw new HoldfastError('PROTOCOL', 'end of a page');
  return { ino: packed.readDoubleLE(0), chunk: packed.readUInt32LE(8) };
}

const CORRECTION_BYTES = 32;
/** No operation has this number: there is no such chunk. */
const NO_SEQ = -1;

function packCorrection({ observed, right }: Correction): Buffer {
  const packed = Buffer.alloc(CORRECTION_BYTES);
  [observed, right].forEach((version, index) => {
    packed.writeDoubleLE(version?.epoch ?? 0, index * 16);
    packed.writeDoubleLE(version?.seq ?? NO_SEQ, index * 16 + 8);
  });
  return packed;
}

function unpackCorrection(packed: Buffer): Correction {
  if (packed.length !== CORRECTION_BYTES) throw new HoldfastError('PROTOCOL', 'what is to be repaired');
  const version = (at: number): Version | undefined => {
    const seq = packed.readDoubleLE(at + 8);
    return seq === NO_SEQ ? undefined : { epoch: packed.readDoubleLE(at), seq };
  };
  return { observed: version(0), right: version(16) };
}
