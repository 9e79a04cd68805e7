/**
 * Cells of files, each written by one writer with rising numbers. A read must see nothing older than what was certain
 * when it began, and nothing that nobody has written yet.
 */
interface Cell {
  /** The last number that was given to a write. */
  issued: number;
  /** Acknowledged so that everybody must see it, as long as no power is lost. */
  visible: number;
  /** On the disks of all in-sync replicas. */
  durable: number;
  /** Numbers under which the cell was emptied. */
  emptied: number[];
  /** Deaths of its writer's machine. */
  deaths: number;
}

/** What a read that begins now must see at least. */
export interface Floor {
  visible: number;
  durable: number;
  /** Power cuts and deaths of the writer until then. */
  losses: number;
}

export class Cells {
  readonly #cells = new Map<string, Cell>();
  reads = 0;
  synced = 0;
  /** Power cuts so far. What was written before one and acknowledged behind it may be gone all the same. */
  cuts = 0;
  /** Only what is synced is certain at this moment, whoever has seen more. */
  unsure: () => boolean = () => false;
  /** A disk was full: data that was written back in vain is gone before a program is told. */
  wasFull = false;

  #of(name: string): Cell {
    let cell = this.#cells.get(name);
    if (!cell) {
      cell = { issued: 0, visible: 0, durable: 0, emptied: [0], deaths: 0 };
      this.#cells.set(name, cell);
    }
    return cell;
  }

  get names(): string[] {
    return [...this.#cells.keys()];
  }

  /** A write begins. @returns its number */
  issue(name: string): number {
    return ++this.#of(name).issued;
  }

  /** The cell is about to be emptied (truncated). @returns the number of that change */
  empty(name: string): number {
    const cell = this.#of(name);
    cell.emptied.push(++cell.issued);
    return cell.issued;
  }

  /** Others must see it from now on. @param cuts as they were when it was written */
  acknowledged(name: string, number: number, cuts: number): void {
    if (cuts !== this.cuts || this.unsure()) return;
    const cell = this.#of(name);
    cell.visible = Math.max(cell.visible, number);
  }

  /** It survives everything within the promise. */
  durable(name: string, number: number): void {
    const cell = this.#of(name);
    cell.durable = Math.max(cell.durable, number);
    cell.visible = Math.max(cell.visible, cell.durable);
    this.synced++;
  }

  /** A machine lost its power: what was not synced may be gone. */
  powerLost(): void {
    this.cuts++;
    for (const cell of this.#cells.values()) cell.visible = cell.durable;
  }

  /** The machine that wrote the cells whose names begin so is gone: what it had not synced may be gone too. */
  writerDied(prefix: string): void {
    for (const [name, cell] of this.#cells) {
      if (!name.startsWith(prefix)) continue;
      cell.deaths++;
      cell.visible = cell.durable;
    }
  }

  floor(name: string): Floor {
    const { visible, durable, deaths } = this.#of(name);
    return { visible, durable, losses: this.cuts + deaths };
  }

  /**
   * A read is over.
   * @param found the number in the cell; 0: it is empty
   * @param floor as floor() told when the read began
   * @returns what is wrong with it
   */
  check(name: string, found: number, floor: Floor): string | undefined {
    const cell = this.#of(name);
    this.reads++;
    // An empty cell may be of any truncate.
    const number = found === 0 ? Math.max(...cell.emptied) : found;
    // A loss meanwhile may have taken back what was only visible.
    const least = floor.losses === this.cuts + cell.deaths ? floor.visible : floor.durable;
    if (number < least) return `cell ${name} holds ${found}, but ${least} was acknowledged before the read`;
    if (number > cell.issued) return `cell ${name} holds ${found}, but only ${cell.issued} were written`;
    return undefined;
  }

  /** A read that saw a number binds later ones, where nothing is cached on the way. */
  seen(name: string, found: number, cuts: number): void {
    if (found > 0) this.acknowledged(name, found, cuts);
  }
}
