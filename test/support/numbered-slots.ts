import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { NbdClient } from '../../src/nbd/client.ts';

const SLOTS = 192;
const SLOT_BYTES = 4096;
/** Slots lie apart, so that they share blocks, and no two a page. */
const STRIDE = 40 * 1024 + 512;
const WRITERS = 3;
const RECONNECT_MILLISECONDS = 30_000;

export type Numbers = readonly (readonly number[])[];

type Connect = (exportName: string) => Promise<NbdClient>;

/**
 * Volumes under load whose every acknowledged write is known: each slot holds a number, its writers write ever larger
 * ones. What is read back lies between what was acknowledged and what was issued, or a write is lost or from nowhere.
 */
export class NumberedSlots {
  readonly volumes: readonly string[];
  readonly #issued: number[][];
  readonly #acknowledged: number[][];
  #stopping = false;
  writes = 0;

  constructor(volumes: readonly string[]) {
    this.volumes = volumes;
    this.#issued = volumes.map(() => new Array<number>(SLOTS).fill(0));
    this.#acknowledged = volumes.map(() => new Array<number>(SLOTS).fill(0));
  }

  acknowledged(): Numbers {
    return this.#acknowledged.map((row) => [...row]);
  }

  issued(): Numbers {
    return this.#issued.map((row) => [...row]);
  }

  /** Writes until it is told to stop, connecting again as often as it must. @returns what stops it, and waits */
  start(connect: Connect, random: () => number): () => Promise<void> {
    this.#stopping = false;
    const writing = this.volumes.flatMap((_, volume) =>
      Array.from({ length: WRITERS }, (_, writer) => this.#writeOn(connect, volume, writer, random)),
    );
    return async () => {
      this.#stopping = true;
      await Promise.all(writing);
    };
  }

  async #writeOn(connect: Connect, volume: number, writer: number, random: () => number): Promise<void> {
    let client: NbdClient | undefined;
    while (!this.#stopping) {
      try {
        client ??= await connect(this.volumes[volume]);
        const slot = Math.floor(random() * (SLOTS / WRITERS)) * WRITERS + writer;
        // A write whose answer never came may be there: the next number is another.
        this.#issued[volume][slot] += 1;
        const number = this.#issued[volume][slot];
        const bytes = Buffer.alloc(SLOT_BYTES);
        for (let at = 0; at < SLOT_BYTES; at += 8) bytes.writeDoubleLE(number, at);
        await client.write(slot * STRIDE, bytes);
        this.#acknowledged[volume][slot] = number;
        this.writes += 1;
        if (random() < 0.02) await client.flush();
      } catch {
        client?.destroy();
        client = undefined;
        await sleep(10);
      }
    }
    client?.destroy();
  }

  /** Reads every volume back. @throws AssertionError when a write is lost, torn, or from nowhere */
  async check(connect: Connect, what: string): Promise<void> {
    for (const [volume, name] of this.volumes.entries()) {
      const numbers = await numbersOf(connect, name);
      checkWithin(numbers, this.#acknowledged[volume], this.#issued[volume], `${what}: ${name}`);
    }
  }
}

/** The number in each slot of an export. @throws AssertionError for a slot that is torn */
export async function numbersOf(connect: Connect, name: string): Promise<number[]> {
  const client = await patientConnection(connect, name);
  const numbers: number[] = [];
  for (let slot = 0; slot < SLOTS; slot += 1) {
    const bytes = await client.read(slot * STRIDE, SLOT_BYTES);
    const number = bytes.readDoubleLE(0);
    for (let at = 8; at < SLOT_BYTES; at += 8)
      assert.equal(bytes.readDoubleLE(at), number, `${name} slot ${slot} is torn`);
    numbers.push(number);
  }
  await client.close();
  return numbers;
}

export function checkWithin(
  numbers: readonly number[],
  least: readonly number[],
  most: readonly number[],
  what: string,
): void {
  for (const [slot, number] of numbers.entries()) {
    assert.ok(
      number >= least[slot] && number <= most[slot],
      `${what} slot ${slot}: ${number} is not in [${least[slot]}, ${most[slot]}]`,
    );
  }
}

async function patientConnection(connect: Connect, name: string): Promise<NbdClient> {
  for (const until = performance.now() + RECONNECT_MILLISECONDS; ; ) {
    try {
      return await connect(name);
    } catch (error) {
      if (performance.now() > until) throw error;
      await sleep(20);
    }
  }
}
