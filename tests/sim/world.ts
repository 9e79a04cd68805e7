import { createPrng, type Prng } from '../../common/prng.js';
import { VirtualClock } from '../chunkserver/pg/sim/virtual-clock.js';
import { Network } from './network.js';
import { SimProcess } from './process.js';
import { Trace } from './trace.js';

/** Runs have about 700 events a virtual second, in bursts of twice as many: what passes this comes to no end. */
const EVENT_BOUND = { events: 30_000, eventsPerSec: 5_000 };
const WALL_SKEW_MAX_SEC = 3;
/**
 * How far the rate of a clock is from true time at most. Two clocks then differ by 3 %: a chunkserver's lease of 1,500 ms, which
 * its metaserver takes for 1,550 ms (LEASE_MARGIN_MS), has the least room of all.
 */
const CLOCK_RATE_DEVIATION = 0.015;

/** Time, chance, network and trace of one run. */
export class World {
  readonly seed: number;
  readonly time = new VirtualClock(EVENT_BOUND);
  /** The only source of chance: the order of its use is part of the run. */
  readonly prng: Prng;
  readonly trace: Trace;
  readonly network: Network;
  failure: Error | undefined;
  clockRateDeviation = CLOCK_RATE_DEVIATION;

  constructor(seed: number, verbose = false) {
    this.seed = seed;
    this.prng = createPrng(seed);
    this.trace = new Trace(this.time, verbose);
    this.network = new Network(this.time, this.prng, this.trace);
  }

  /** Ends the run: something must not be. The first reason counts. */
  fail(error: Error): void {
    this.failure ??= error;
  }

  newProcess(host: string): SimProcess {
    const skewSec = this.prng.int(2 * WALL_SKEW_MAX_SEC + 1) - WALL_SKEW_MAX_SEC;
    const rate = 1 + (2 * this.prng.float() - 1) * this.clockRateDeviation;
    return new SimProcess(host, this.time, skewSec, rate);
  }

  /** A UUID of the run's chance. */
  uuid(): string {
    let hex = '';
    while (hex.length < 32) hex += this.prng.int(0x10000).toString(16).padStart(4, '0');
    return hex.replace(/^(.{8})(.{4}).(.{3}).(.{3})(.{12})$/, '$1-$2-4$3-8$4-$5');
  }

  /** Lets time pass. @throws Error the failure that ends the run */
  async until(at: number): Promise<void> {
    while (this.time.now() < at && !this.failure) await this.time.run(Math.min(at, this.time.now() + 100));
    if (this.failure) throw this.failure;
  }
}
