import type { NbdClient } from '../nbd/client.ts';

/**
 * Writers and a checker for the promise of a cut: if a set holds a write, it holds every write that was acknowledged
 * before that one was issued.
 *
 * Several chains write, each one write at a time: the next is issued when the last is acknowledged. A write goes to any
 * of the volumes, over any of the connections. It is either a record in a slot of its own (so that its presence can be
 * seen for ever) or a new value in the chain's register on that volume (so that blocks are overwritten again and again).
 * With each record goes a vector: how many writes of every chain were acknowledged when it was issued.
 */
const SLOT_BYTES = 512;
const REGISTER_BYTES = 4096;
const SLOTS_PER_CHAIN = 16_384;
/** Slots of a chain lie 512 bytes apart, so that many of them share a block, and some a page. */
const CHAIN_STRIDE = SLOTS_PER_CHAIN * SLOT_BYTES + 64 * 1024;

type Operation = { kind: 'slot' | 'register'; volume: number; slot: number };

export type Clock = { acknowledged: number[]; issued: number[] };

/** Reads bytes of one volume of a set. */
export type SetReader = (volume: number, offset: number, length: number) => Promise<Buffer>;

export class CausalWriters {
  readonly #connections: NbdClient[][];
  readonly #chains: Operation[][] = [];
  readonly #acknowledged: number[];
  readonly #random: () => number;
  #stopping = false;
  #running: Promise<void>[] = [];
  #startedAt = 0;
  #longestGap = 0;

  /** @param connections for each volume, the connections that may be used for it */
  constructor(connections: NbdClient[][], chains: number, random: () => number) {
    this.#connections = connections;
    this.#random = random;
    for (let chain = 0; chain < chains; chain += 1) this.#chains.push([]);
    this.#acknowledged = new Array(chains).fill(0);
  }

  /** How many bytes of each volume the writers use, from its beginning. */
  static areaBytes(chains: number): number {
    return chains * CHAIN_STRIDE;
  }

  start(): void {
    this.#startedAt = performance.now();
    this.#running = this.#chains.map((_, chain) => this.#run(chain));
    // A write that fails is thrown by `stop`; until then no one waits for it.
    for (const running of this.#running) running.catch(() => undefined);
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#running);
  }

  /** How many writes of each chain were issued, and acknowledged, by now. */
  clock(): Clock {
    return { acknowledged: [...this.#acknowledged], issued: this.#chains.map((operations) => operations.length) };
  }

  get writes(): number {
    return this.#acknowledged.reduce((sum, count) => sum + count, 0);
  }

  get writesPerSecond(): number {
    return this.writes / ((performance.now() - this.#startedAt) / 1000);
  }

  /** The longest that any write took to be acknowledged. */
  get longestGapMilliseconds(): number {
    return this.#longestGap;
  }

  async #run(chain: number): Promise<void> {
    const slotsUsed = this.#connections.map(() => 0);
    while (!this.#stopping) {
      const volume = Math.floor(this.#random() * this.#connections.length);
      const kind = this.#random() < 0.5 && slotsUsed[volume] < SLOTS_PER_CHAIN ? 'slot' : 'register';
      const slot = kind === 'slot' ? slotsUsed[volume]++ : -1;
      const sequence = this.#chains[chain].length + 1;
      const bytes = kind === 'slot' ? Buffer.alloc(SLOT_BYTES) : Buffer.alloc(REGISTER_BYTES, sequence & 0xff);
      encode(bytes, chain, sequence, this.#acknowledged);
      const offset = kind === 'slot' ? slotOffset(chain, slot) : registerOffset(chain);
      const connections = this.#connections[volume];
      this.#chains[chain].push({ kind, volume, slot });
      const issuedAt = performance.now();
      await connections[Math.floor(this.#random() * connections.length)].write(offset, bytes);
      this.#acknowledged[chain] = sequence;
      this.#longestGap = Math.max(this.#longestGap, performance.now() - issuedAt);
    }
  }

  /**
   * Checks one set.
   * @param before the clock when CreateSnapshots was called @param after the clock when it had answered
   * @returns every violation, in words; none when the promise holds
   */
  async check(read: SetReader, before: Clock, after: Clock): Promise<string[]> {
    const violations: string[] = [];
    const held = this.#chains.map(() => 0);
    const vectors: { chain: number; sequence: number; vector: number[] }[] = [];
    const images: Map<string, Buffer>[] = [];
    for (let volume = 0; volume < this.#connections.length; volume += 1) images.push(new Map());

    // What is there: each chain's latest write in the set.
    for (const [chain, operations] of this.#chains.entries()) {
      const considered = operations.slice(0, after.issued[chain] + 1000);
      for (let volume = 0; volume < this.#connections.length; volume += 1) {
        const slots = considered.filter((operation) => operation.kind === 'slot' && operation.volume === volume).length;
        const log = slots === 0 ? Buffer.alloc(0) : await read(volume, slotOffset(chain, 0), slots * SLOT_BYTES);
        const register = await read(volume, registerOffset(chain), REGISTER_BYTES);
        images[volume].set(`log ${chain}`, log);
        images[volume].set(`register ${chain}`, register);
        for (let at = 0; at < log.length; at += SLOT_BYTES) {
          const record = decode(log.subarray(at, at + SLOT_BYTES), this.#chains.length);
          if (record === undefined) continue;
          held[chain] = Math.max(held[chain], record.sequence);
          vectors.push({ chain, sequence: record.sequence, vector: record.vector });
        }
        const record = decode(register, this.#chains.length);
        if (record !== undefined) {
          held[chain] = Math.max(held[chain], record.sequence);
          vectors.push({ chain, sequence: record.sequence, vector: record.vector });
        }
      }
    }

    // Each chain's writes up to its latest are all there, and the registers have just the value of their time.
    for (const [chain, operations] of this.#chains.entries()) {
      const registers = this.#connections.map(() => 0);
      for (const [index, { kind, volume, slot }] of operations.slice(0, held[chain]).entries()) {
        const sequence = index + 1;
        if (kind === 'register') {
          registers[volume] = sequence;
          continue;
        }
        const log = images[volume].get(`log ${chain}`) ?? Buffer.alloc(0);
        const record = decode(log.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES), this.#chains.length);
        if (record?.sequence !== sequence) {
          violations.push(`chain ${chain}: write ${held[chain]} is in the set, write ${sequence} before it is not`);
        }
      }
      for (const [volume, expected] of registers.entries()) {
        const register = images[volume].get(`register ${chain}`) ?? Buffer.alloc(0);
        const found = decode(register, this.#chains.length)?.sequence ?? 0;
        if (found !== expected) {
          violations.push(
            `chain ${chain}: the register on volume ${volume} has write ${found}, expected ${expected} (of ${held[chain]})`,
          );
        } else if (found > 0 && !register.subarray(SLOT_BYTES).every((byte) => byte === (found & 0xff))) {
          violations.push(`chain ${chain}: the register on volume ${volume} is torn`);
        }
      }
    }

    // Across chains: what a write could know of the others is in the set too.
    for (const { chain, sequence, vector } of vectors) {
      for (const [other, known] of vector.entries()) {
        if (known > held[other]) {
          violations.push(
            `chain ${chain} write ${sequence} was issued after chain ${other} write ${known} was acknowledged, but the set ends at ${held[other]} there`,
          );
        }
      }
    }
    for (const [chain, count] of held.entries()) {
      if (count < before.acknowledged[chain]) {
        violations.push(
          `chain ${chain}: write ${before.acknowledged[chain]} was acknowledged before the call, the set ends at ${count}`,
        );
      }
      if (count > after.issued[chain]) {
        violations.push(
          `chain ${chain}: the set holds write ${count}, issued after the call was answered (${after.issued[chain]})`,
        );
      }
    }
    return violations;
  }
}

function slotOffset(chain: number, slot: number): number {
  return chain * CHAIN_STRIDE + slot * SLOT_BYTES;
}

function registerOffset(chain: number): number {
  return chain * CHAIN_STRIDE + SLOTS_PER_CHAIN * SLOT_BYTES;
}

const MAGIC = 0x43415553;

function encode(target: Buffer, chain: number, sequence: number, vector: readonly number[]): void {
  target.writeUInt32LE(MAGIC, 0);
  target.writeUInt32LE(chain, 4);
  target.writeUInt32LE(sequence, 8);
  for (const [index, count] of vector.entries()) target.writeUInt32LE(count, 12 + 4 * index);
}

function decode(bytes: Buffer, chains: number): { sequence: number; vector: number[] } | undefined {
  if (bytes.length < SLOT_BYTES || bytes.readUInt32LE(0) !== MAGIC) return undefined;
  const vector = Array.from({ length: chains }, (_, index) => bytes.readUInt32LE(12 + 4 * index));
  return { sequence: bytes.readUInt32LE(8), vector };
}
