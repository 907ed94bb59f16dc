import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { NbdClient } from '../../src/nbd/client.ts';

const SLOTS = 192;
const SLOT_BYTES = 4096;
const PAGE_BYTES = 4096;
/** Slots lie apart, so that they share blocks, and no two a page. */
const STRIDE = 40 * 1024 + 512;
const WRITERS = 3;
const RECONNECT_MILLISECONDS = 30_000;

export type Numbers = readonly (readonly number[])[];
/** What a slot holds: one number, or two where a kill has torn a write. */
export type SlotRead = { oldest: number; newest: number };
/** Whether the write of a number to a slot had no answer. */
export type Unanswered = (slot: number, number: number) => boolean;

type Connect = (exportName: string) => Promise<NbdClient>;

/**
 * Volumes under load whose every acknowledged write is known: each slot holds a number, its writers write ever larger
 * ones. What is read back lies between what was acknowledged and what was issued, or a write is lost or from nowhere.
 */
export class NumberedSlots {
  readonly volumes: readonly string[];
  readonly #issued: number[][];
  readonly #acknowledged: number[][];
  readonly #unanswered: Set<number>[][];
  #stopping = false;
  writes = 0;

  constructor(volumes: readonly string[]) {
    this.volumes = volumes;
    this.#issued = volumes.map(() => new Array<number>(SLOTS).fill(0));
    this.#acknowledged = volumes.map(() => new Array<number>(SLOTS).fill(0));
    this.#unanswered = volumes.map(() => Array.from({ length: SLOTS }, () => new Set()));
  }

  /** Of one volume, by its place among the volumes. */
  unanswered(volume: number): Unanswered {
    return (slot, number) => this.#unanswered[volume][slot].has(number);
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
    let underWay: { slot: number; number: number } | undefined;
    while (!this.#stopping) {
      try {
        client ??= await connect(this.volumes[volume]);
        const slot = Math.floor(random() * (SLOTS / WRITERS)) * WRITERS + writer;
        // A write whose answer never came may be there: the next number is another.
        this.#issued[volume][slot] += 1;
        const number = this.#issued[volume][slot];
        const bytes = Buffer.alloc(SLOT_BYTES);
        for (let at = 0; at < SLOT_BYTES; at += 8) bytes.writeDoubleLE(number, at);
        underWay = { slot, number };
        await client.write(slot * STRIDE, bytes);
        underWay = undefined;
        this.#acknowledged[volume][slot] = number;
        this.writes += 1;
        if (random() < 0.02) await client.flush();
      } catch {
        if (underWay !== undefined) this.#unanswered[volume][underWay.slot].add(underWay.number);
        underWay = undefined;
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
      const numbers = await numbersOf(connect, name, this.unanswered(volume));
      checkWithin(numbers, this.#acknowledged[volume], this.#issued[volume], `${what}: ${name}`);
    }
  }
}

/**
 * What each slot of an export holds.
 *
 * A slot lies in two pages, and Linux ends a write call between any two pages when its process is killed. So a write that
 * had no answer may be there with its beginning alone, as with any disk; one that had an answer may not.
 * @throws AssertionError for a slot that is torn in any other way
 */
export async function numbersOf(
  connect: Connect,
  name: string,
  unanswered: Unanswered = () => false,
): Promise<SlotRead[]> {
  const client = await patientConnection(connect, name);
  const read: SlotRead[] = [];
  for (let slot = 0; slot < SLOTS; slot += 1) {
    const bytes = await client.read(slot * STRIDE, SLOT_BYTES);
    read.push(readSlot(bytes, slot, unanswered, `${name} slot ${slot}`));
  }
  await client.close();
  return read;
}

export function readSlot(bytes: Buffer, slot: number, unanswered: Unanswered, what: string): SlotRead {
  const secondPage = PAGE_BYTES - ((slot * STRIDE) % PAGE_BYTES);
  const newest = bytes.readDoubleLE(0);
  const oldest = bytes.readDoubleLE(SLOT_BYTES - 8);
  for (let at = 0; at < SLOT_BYTES; at += 8) {
    assert.equal(bytes.readDoubleLE(at), at < secondPage ? newest : oldest, `${what} is torn within a page`);
  }
  if (newest !== oldest) {
    assert.ok(newest > oldest && unanswered(slot, newest), `${what} is torn: ${newest}, then ${oldest}`);
  }
  return { oldest, newest };
}

export function checkWithin(
  numbers: readonly SlotRead[],
  least: readonly number[],
  most: readonly number[],
  what: string,
): void {
  for (const [slot, { oldest, newest }] of numbers.entries()) {
    assert.ok(
      oldest >= least[slot] && newest <= most[slot],
      `${what} slot ${slot}: ${oldest} to ${newest} is not in [${least[slot]}, ${most[slot]}]`,
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
