import { type Disk, readWholeFile } from '../../../common/disk.js';
import type { Command, StateMachine } from '../../../metaserver/replica/state-machine.js';

interface State {
  applied: number;
  items: string[];
}

/** A list of all commands; a command's result is its place in the list. What was not flushed is lost in a crash. */
export class TestMachine implements StateMachine<number> {
  state: State = { applied: 0, items: [] };
  durable: State = { applied: 0, items: [] };
  /** Most commands that one apply() was given. */
  largestBatch = 0;
  /** Thrown by the next apply(). */
  failure: Error | undefined;
  restores = 0;

  constructor(private readonly disk: Disk) {}

  /** The machine that a restart after a crash finds. */
  crashed(disk: Disk): TestMachine {
    const next = new TestMachine(disk);
    next.durable = this.durable;
    next.state = { ...this.durable, items: [...this.durable.items] };
    return next;
  }

  apply(commands: readonly Command[]): number[] {
    if (this.failure) throw this.failure;
    this.largestBatch = Math.max(this.largestBatch, commands.length);
    return commands.map(({ index, data }) => {
      if (index <= this.state.applied) throw new Error(`command ${index} after ${this.state.applied}`);
      this.state.applied = index;
      return this.state.items.push(data.toString());
    });
  }

  appliedIndex(): number {
    return this.state.applied;
  }

  async flushed(): Promise<number> {
    const state = { applied: this.state.applied, items: [...this.state.items] };
    await this.disk.space('/'); // a machine whose disk has crashed flushes nothing
    this.durable = state;
    return state.applied;
  }

  async backup(path: string): Promise<number> {
    const { applied } = this.state;
    const copy = Buffer.from(JSON.stringify(this.state));
    const file = await this.disk.open(path, 'create');
    await file.write([copy], 0);
    await file.close();
    return applied;
  }

  async restore(path: string): Promise<void> {
    this.state = JSON.parse((await readWholeFile(this.disk, path)).toString()) as State;
    await this.disk.unlink(path);
    await this.flushed();
    this.restores++;
  }
}
