import assert from 'node:assert/strict';
import { BUSY_POLL_US, BusyPoll, type Turns } from '../../../../client/fuse/kernel/busy-poll.js';

/** An event loop that turns when it is told to, 10 us each time. */
class ManualTurns implements Turns {
  readonly #waiting: (() => void)[] = [];
  #ms = 0;

  now(): number {
    return this.#ms;
  }

  next(fn: () => void): void {
    this.#waiting.push(fn);
  }

  /** Whether the loop would go on without sleeping. */
  get awake(): boolean {
    return this.#waiting.length > 0;
  }

  turn(): void {
    this.#ms += 0.01;
    for (const fn of this.#waiting.splice(0)) fn();
  }

  /** @returns the turns until the loop would sleep */
  run(): number {
    let turns = 0;
    for (; this.awake; turns++) {
      assert.ok(turns < 1000, 'the loop never sleeps');
      this.turn();
    }
    return turns;
  }
}

/** Answers in a row behind none of which a request comes. @returns the turns that each of them cost */
function inVain(poll: BusyPoll, turns: ManualTurns, answers: number): number[] {
  return Array.from({ length: answers }, () => {
    poll.answered();
    return turns.run();
  });
}

describe('a busy poll', () => {
  let turns: ManualTurns;
  let poll: BusyPoll;

  beforeEach(() => {
    turns = new ManualTurns();
    poll = new BusyPoll(BUSY_POLL_US, turns);
  });

  it('keeps the loop awake behind an answer, no longer than it may', () => {
    poll.answered();
    assert.ok(turns.awake);
    assert.equal(turns.run(), BUSY_POLL_US / 10);
  });

  it('begins anew behind each answer, and keeps one turn waiting at a time', () => {
    poll.answered();
    for (let i = 0; i < 3; i++) {
      turns.turn();
      poll.answered();
    }
    assert.equal(turns.run(), BUSY_POLL_US / 10);
  });

  it('lets the loop sleep while a request is worked on', () => {
    poll.answered();
    turns.turn();
    poll.arrived();
    assert.equal(turns.run(), 1);
  });

  it('lets answers pass where requests do not come in time, more and more of them', () => {
    const polled = inVain(poll, turns, 5000).filter((each) => each > 0).length;
    assert.ok(polled >= 8, `${polled} polls: it does not try again`);
    assert.ok(polled <= 20, `${polled} polls in vain of 5000`);
  });

  it('polls behind each answer again once one was of use', () => {
    inVain(poll, turns, 1000);
    let passed = 0;
    while (!turns.awake) {
      poll.answered();
      passed++;
      assert.ok(passed <= 512, 'a pause ends');
    }
    poll.arrived();
    turns.run();
    for (let i = 0; i < 10; i++) {
      poll.answered();
      assert.ok(turns.awake);
      poll.arrived();
      turns.run();
    }
  });

  it('never polls where it was told not to', () => {
    poll = new BusyPoll(0, turns);
    poll.answered();
    assert.ok(!turns.awake);
  });
});
