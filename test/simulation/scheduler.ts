/** What could happen next, in an order that a seed decides; and a clock that only it moves. */
export class Scheduler {
  readonly random: () => number;
  #waiting: { milliseconds: number; happen: () => void }[] = [];
  #now = 0;

  constructor(random: () => number) {
    this.random = random;
  }

  get now(): number {
    return this.#now;
  }

  /** Waits until the scheduler has it happen. */
  turn(milliseconds = 1): Promise<void> {
    return new Promise((resolve) => this.#waiting.push({ milliseconds, happen: resolve }));
  }

  get pending(): number {
    return this.#waiting.length;
  }

  /** One of the things that are waiting happens, and all that follows from it at once. */
  async step(): Promise<void> {
    const index = Math.floor(this.random() * this.#waiting.length);
    const [event] = this.#waiting.splice(index, 1);
    this.#now += event.milliseconds;
    event.happen();
    // Promises that are ready run to their next wait; there is nothing here that the machine does in its own time.
    await new Promise(setImmediate);
  }

  /** The process is gone: nothing that waits ever happens. */
  forget(): void {
    this.#waiting = [];
  }
}
