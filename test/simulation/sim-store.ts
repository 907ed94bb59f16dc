import { ObjectNotFoundError, type ObjectStore, ObjectTooShortError } from '../../src/objects/object-store.ts';
import { removeEach, removeListed } from '../../src/objects/remove-each.ts';
import { KilledError } from '../support/crash-disk.ts';
import type { Scheduler } from './scheduler.ts';

export type StoreFaults = {
  /** How often a request fails, and how often bytes come back wrong: 0 to 1. */
  failing: number;
  lying: number;
  /** A planted mistake: packs are said to be stored before they are. */
  packsLate?: boolean;
};

/** An object store that takes its time, fails, and sometimes gives back what was never put there. */
export class SimStore implements ObjectStore {
  readonly url = 'simulated://';
  readonly objects = new Map<string, Buffer>();
  readonly #scheduler: Scheduler;
  readonly #faults: StoreFaults;
  readonly #lied = new Set<string>();
  #life = 0;

  constructor(scheduler: Scheduler, faults: StoreFaults) {
    this.#scheduler = scheduler;
    this.#faults = faults;
  }

  /** The process that asked is gone, and what it still had to ask with it. */
  restart(): void {
    this.#life += 1;
  }

  /** From here on it does what it is asked. */
  calm(): void {
    this.#faults.failing = 0;
    this.#faults.lying = 0;
  }

  async put(key: string, pieces: readonly Uint8Array[]): Promise<void> {
    const life = this.#life;
    const bytes = Buffer.concat(pieces);
    if (this.#faults.packsLate === true && key.startsWith('packs/')) {
      void this.#scheduler.turn().then(async () => {
        for (let wait = 0; wait < 6; wait += 1) await this.#scheduler.turn();
        this.objects.set(key, bytes);
      });
      return;
    }
    // Whole or not at all; and an answer that is lost may be of a request that was done.
    await this.#scheduler.turn();
    this.#alive(life);
    if (this.#scheduler.random() < this.#faults.failing) {
      if (this.#scheduler.random() < 0.3) this.objects.set(key, bytes);
      throw new Error('503 Slow Down');
    }
    this.objects.set(key, bytes);
    await this.#scheduler.turn();
    this.#alive(life);
  }

  async get(key: string): Promise<Buffer> {
    const life = this.#life;
    await this.#scheduler.turn();
    this.#alive(life);
    if (this.#scheduler.random() < this.#faults.failing) throw new Error('500 Internal Error');
    const found = this.objects.get(key);
    if (found === undefined) throw new ObjectNotFoundError(this.url, key);
    const bytes = Buffer.from(found);
    // Not twice running of one object: whoever asks again is told the truth. (What happens when he is not: capture.test.ts.)
    const lies = this.#scheduler.random() < this.#faults.lying && !this.#lied.has(key);
    this.#lied.delete(key);
    if (lies) {
      this.#lied.add(key);
      bytes[Math.floor(this.#scheduler.random() * bytes.length)] ^= 1 + Math.floor(this.#scheduler.random() * 255);
    }
    return bytes;
  }

  async getRange(key: string, offset: number, length: number): Promise<Buffer> {
    const whole = await this.get(key);
    // A connection that was cut.
    if (this.#scheduler.random() < this.#faults.failing / 2) throw new Error('aborted');
    if (offset + length > whole.length) throw new ObjectTooShortError(this.url, key);
    return whole.subarray(offset, offset + length);
  }

  async *list(prefix: string): AsyncGenerator<{ key: string; bytes: number }> {
    const life = this.#life;
    await this.#scheduler.turn();
    this.#alive(life);
    for (const [key, bytes] of [...this.objects]) if (key.startsWith(prefix)) yield { key, bytes: bytes.length };
  }

  removeFolder(folder: string): Promise<void> {
    return removeListed(this, folder);
  }

  async removeUnfinished(): Promise<void> {}

  remove(keys: readonly string[]): Promise<void> {
    const life = this.#life;
    return removeEach(keys, async (key) => {
      await this.#scheduler.turn();
      this.#alive(life);
      if (this.#scheduler.random() < this.#faults.failing) throw new Error('503 Slow Down');
      this.objects.delete(key);
    });
  }

  #alive(life: number): void {
    if (life !== this.#life) throw new KilledError('the process was killed');
  }
}
