import assert from 'node:assert/strict';
import type { FrameLink } from '../../../client/data/chunk-connections.js';
import { LINK_CHECK_INTERVAL_MS, LINK_SILENCE_MS, LinkWatch } from '../../../client/data/link-watch.js';
import { FrameType } from '../../../proto/frame-header.js';
import type { Frame } from '../../../proto/frames.js';

class FakeLink implements FrameLink {
  ended = false;
  closed = new Promise<string>(() => {});
  inFlight = 1;
  queuedBytes = 0;
  lastHeardAt = 0;
  pings = 0;
  reason: string | undefined;
  call(fields: { type: FrameType }): Promise<Frame> {
    assert.equal(fields.type, FrameType.PING);
    this.pings++;
    return new Promise(() => {});
  }
  close(reason: string): void {
    this.ended = true;
    this.reason = reason;
  }
}

/** Checks every interval until `ms` have passed; `step` says what happens before each check. */
function pass(watch: LinkWatch, link: FakeLink, ms: number, step: (now: number) => void = () => {}): void {
  for (let at = 0; at < ms; at += LINK_CHECK_INTERVAL_MS) {
    clock += LINK_CHECK_INTERVAL_MS;
    step(clock);
    watch.check([link], clock);
  }
}
let clock = 0;

describe('the watch over links to chunkservers', () => {
  let watch: LinkWatch;
  let link: FakeLink;
  beforeEach(() => {
    clock = 0;
    watch = new LinkWatch();
    link = new FakeLink();
    watch.check([link], clock);
  });
  const LONG_MS = 3 * LINK_SILENCE_MS;

  it('asks a silent server once whether it is there, and breaks off when it says nothing', () => {
    pass(watch, link, LONG_MS);
    assert.deepEqual([link.pings, link.reason], [1, `silent for ${LINK_SILENCE_MS} ms`]);
  });

  it('leaves a server alone that answers the question, however long a request takes', () => {
    let asked = 0;
    pass(watch, link, LONG_MS, (now) => {
      if (link.pings > asked) link.lastHeardAt = now;
      asked = link.pings;
    });
    assert.equal(link.ended, false);
    assert.ok(link.pings > 1);
  });

  it('says nothing on a link on which nobody waits', () => {
    link.inFlight = 0;
    pass(watch, link, LONG_MS);
    assert.deepEqual([link.pings, link.ended], [0, false]);
  });

  it('takes bytes that leave as a sign of life: a slow network is no dead one', () => {
    link.queuedBytes = 1_000_000;
    pass(watch, link, LONG_MS, () => {
      link.queuedBytes -= 1_000;
    });
    assert.equal(link.ended, false);
  });

  it('starts anew after a pause of this process', () => {
    pass(watch, link, LINK_SILENCE_MS - LINK_CHECK_INTERVAL_MS);
    clock += 30_000;
    watch.check([link], clock);
    pass(watch, link, LINK_SILENCE_MS - LINK_CHECK_INTERVAL_MS);
    assert.equal(link.ended, false);
    pass(watch, link, 2 * LINK_CHECK_INTERVAL_MS);
    assert.equal(link.ended, true);
  });
});
