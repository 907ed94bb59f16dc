import assert from 'node:assert/strict';
import { createCipheriv, randomBytes } from 'node:crypto';
import { closeSync, cpSync, openSync, readdirSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import { DataKey, WrongKeyError } from '../../src/encryption/data-key.ts';
import { PageCipher } from '../../src/encryption/page-cipher.ts';
import { applyPatch, ENCODING, type PackId, sha256 } from '../../src/snapshots/block-encoding.ts';
import { FileJournal } from '../../src/snapshots/upload-journal.ts';
import { ALL_PAGES, countPages, type PageMask } from '../../src/types/page-mask.ts';
import {
  asBlock,
  asEpoch,
  BLOCK_BYTES,
  type EpochNumber,
  NO_BASE,
  PAGE_BYTES,
  PAGES_PER_BLOCK,
} from '../../src/types/units.ts';
import type { BlockSource } from '../../src/volumes/block-source.ts';
import type { BlockAsOfCut } from '../../src/volumes/copy-before-write.ts';
import { CutFiles } from '../../src/volumes/cut-files.ts';
import { LocalVolume } from '../../src/volumes/local-volume.ts';
import { createVolume } from '../../src/volumes/new-volume.ts';
import { readVolumeState, SavedState } from '../../src/volumes/volume-state.ts';
import { CrashDisk, KilledError } from '../support/crash-disk.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const BLOCKS = 6;
const FIRST = asEpoch(1);
const SIZE = BLOCKS * BLOCK_BYTES;
const NOWHERE = { pack: '' as PackId, offset: 0, length: 0, encoding: ENCODING.PLAIN, sha256: sha256(Buffer.alloc(0)) };

/** A snapshot whose blocks are the model's first bytes. */
function sourceOf(image: Buffer): BlockSource {
  const blockAt = (block: number): Buffer =>
    Buffer.from(image.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES));
  return {
    // As from a real one, some come later than others, and the bytes are there for one turn of the event loop.
    read: async (block) => {
      for (let turn = 0; turn < block % 3; turn += 1) await new Promise(setImmediate);
      const bytes = blockAt(block);
      setImmediate(() => bytes.fill(0xee));
      return bytes;
    },
    async *blocks(from) {
      for (let block = from as number; block < BLOCKS; block += 1)
        yield { block: asBlock(block), bytes: blockAt(block) };
    },
  };
}

type PendingCut = { boundary: EpochNumber; image: Buffer; captured: Set<number> };

/** A volume, and beside it the array of bytes that it should be. */
class Rig {
  readonly directory: string;
  readonly random: () => number;
  readonly source: BlockSource | undefined;
  readonly key: DataKey | undefined;
  disk = new CrashDisk();
  model: Buffer;
  /** What a write that was never acknowledged would have made of the model. */
  unacknowledged: { offset: number; bytes: Buffer } | undefined;
  volume!: LocalVolume;
  cuts: PendingCut[] = [];
  base: { boundary: EpochNumber; image: Buffer };
  lost: string[] = [];
  /** How often it was known which pages of a block had changed. */
  knownPages = 0;
  stagingLimitBytes = 1 << 30;
  bootId = 'boot 1';
  /** Zeroes, or what it was restored from: what is not local is there still. */
  readonly beginning: Buffer;
  forgotten = 0;

  private constructor(directory: string, random: () => number, restored: boolean, encrypted: boolean) {
    this.directory = directory;
    this.random = random;
    this.model = restored ? randomBytes(SIZE) : Buffer.alloc(SIZE);
    this.source = restored ? sourceOf(Buffer.from(this.model)) : undefined;
    this.key = encrypted ? DataKey.generate() : undefined;
    this.beginning = Buffer.from(this.model);
    this.base = { boundary: FIRST, image: this.beginning };
  }

  static async make(directory: string, random: () => number, restored: boolean, encrypted = false): Promise<Rig> {
    const rig = new Rig(directory, random, restored, encrypted);
    const { disk, key, bootId } = rig;
    const volume = { volumeId: 'vol-1', sizeBytes: SIZE, restored, baseless: false, key, bootId };
    await createVolume(disk, directory, volume);
    rig.volume = await rig.open();
    return rig;
  }

  open(): Promise<LocalVolume> {
    return LocalVolume.open(
      this.directory,
      {
        disk: this.disk,
        bootId: this.bootId,
        stagingLimitBytes: this.stagingLimitBytes,
        onCutLost: (_, reason) => this.lost.push(reason),
        onFault: () => undefined,
        isSuspect: false,
      },
      this.source,
      this.key,
      {
        base: this.base?.boundary ?? FIRST,
        newest: asEpoch(Math.max(this.base?.boundary ?? FIRST, ...this.cuts.map((cut) => cut.boundary))),
      },
    );
  }

  range(most: number): { offset: number; length: number } {
    const aligned = this.random() < 0.5;
    let offset = Math.floor(this.random() * SIZE);
    let length = 1 + Math.floor(this.random() * most);
    if (aligned) {
      offset -= offset % PAGE_BYTES;
      length = Math.ceil(length / PAGE_BYTES) * PAGE_BYTES;
    }
    return { offset, length: Math.min(length, SIZE - offset) };
  }

  async write(): Promise<void> {
    const { offset, length } = this.range(this.random() < 0.3 ? 2 * BLOCK_BYTES : 20_000);
    const bytes = randomBytes(length);
    this.unacknowledged = { offset, bytes };
    await this.volume.write([bytes.subarray(0, length >> 1), bytes.subarray(length >> 1)], length, offset);
    bytes.copy(this.model, offset);
    this.unacknowledged = undefined;
  }

  async zero(): Promise<void> {
    const { offset, length } = this.range(this.random() < 0.2 ? SIZE : BLOCK_BYTES);
    this.unacknowledged = { offset, bytes: Buffer.alloc(length) };
    await this.volume.zero(offset, length, this.random() < 0.5);
    this.model.fill(0, offset, offset + length);
    this.unacknowledged = undefined;
  }

  async discard(): Promise<void> {
    const { offset, length } = this.range(this.random() < 0.2 ? SIZE : BLOCK_BYTES);
    this.unacknowledged = { offset, bytes: Buffer.alloc(length) };
    await this.volume.discard(offset, length);
    // A discarded byte is what it was, or zero: whichever it is found to be, it stays. (The read brings in what is not here
    // yet, and may be killed at that: then nobody has seen it.)
    const now = Buffer.alloc(length);
    await this.volume.read(now, 0, length, offset);
    for (let at = 0; at < length; at += 1) assert.ok(now[at] === 0 || now[at] === this.model[offset + at]);
    now.copy(this.model, offset);
    this.unacknowledged = undefined;
  }

  async cut(): Promise<void> {
    await this.volume.prepareCut();
    this.volume.hold();
    const boundary = this.volume.cut();
    this.volume.release();
    const image = Buffer.from(this.model);
    this.cuts.push({ boundary, image, captured: new Set() });
  }

  /** Reads the oldest cut as the upload does, compares it, and lets some or all of its blocks go. */
  async upload(whole: boolean): Promise<void> {
    const cut = this.cuts[0];
    if (cut === undefined) return;
    await this.check(cut);
    const { blocks } = this.volume.changedBlocks(cut.boundary, this.base.boundary, 0, BLOCKS);
    for (const block of blocks) {
      if (!whole && this.random() < 0.5) continue;
      this.volume.captured(cut.boundary, block);
      cut.captured.add(block);
    }
    if (!whole) return;
    this.cuts.shift();
    this.base = { boundary: cut.boundary, image: cut.image };
    this.volume.finishCut(cut.boundary, true);
  }

  /** A cut's blocks are as they were; what is not said to have changed is as in its base. */
  async check(cut: PendingCut): Promise<void> {
    const files = new CutFiles(this.disk, this.directory, SIZE, this.key, this.volume.hydrating);
    const changed = new Set<number>();
    let compareAll = false;
    // Some at a time, as an upload asks.
    for (let from = 0, more = true; more; ) {
      const answer = this.volume.changedBlocks(cut.boundary, this.base.boundary, from, 3);
      compareAll = answer.compareAll;
      more = answer.more;
      for (const block of answer.blocks) changed.add(block);
      from = (answer.blocks.at(-1) ?? BLOCKS) + 1;
    }
    for (let block = 0; block < BLOCKS; block += 1) {
      if (cut.captured.has(block)) continue;
      const expected = cut.image.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
      if (!changed.has(block) && !compareAll) {
        const base = this.base.image.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
        assert.ok(expected.equals(base), `block ${block} changed before cut ${cut.boundary}, and no one knows`);
        continue;
      }
      const read = async (pages: PageMask): Promise<Buffer | undefined> => {
        const target = Buffer.alloc(BLOCK_BYTES);
        const [local] = await files.read([{ block, pages }], target, async (asked) =>
          asked.map((each) => this.volume.blockAsOfCut(cut.boundary, each)),
        );
        return local ? target : undefined;
      };
      const base = this.base.image.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
      const whole = await read(ALL_PAGES);
      assert.ok((whole ?? base).equals(expected), `block ${block} as of cut ${cut.boundary} is wrong`);
      const written = this.volume.writtenPages(cut.boundary, this.base.boundary, block);
      const pages = await read(written);
      if (pages === undefined) continue;
      this.knownPages += Number(countPages(written) < PAGES_PER_BLOCK);
      const patched = Buffer.from(base);
      applyPatch(patched, { pages: written, record: NOWHERE }, pages);
      assert.ok(patched.equals(expected), `pages of block ${block} changed, and no one knows`);
    }
    files.close();
  }

  async checkNow(): Promise<void> {
    const now = Buffer.alloc(SIZE);
    await this.volume.read(now, 0, SIZE, 0);
    const { unacknowledged } = this;
    if (unacknowledged !== undefined) {
      // In part or whole it may be there; then that is what there is.
      const { offset, bytes } = unacknowledged;
      for (let at = 0; at < bytes.length; at += 1) {
        const found = now[offset + at];
        assert.ok(found === bytes[at] || found === this.model[offset + at], 'neither the old byte nor the new one');
        this.model[offset + at] = found;
      }
      this.unacknowledged = undefined;
    }
    assert.ok(now.equals(this.model), 'an acknowledged write is not there');
  }

  async step(): Promise<void> {
    const dice = this.random();
    if (dice < 0.5) await this.write();
    else if (dice < 0.58) await this.zero();
    else if (dice < 0.63) await this.discard();
    else if (dice < 0.73 && this.cuts.length < 4) await this.cut();
    else if (dice < 0.8) await this.upload(false);
    else if (dice < 0.87) await this.upload(true);
    else if (dice < 0.9) await this.volume.flush();
    else if (dice < 0.92) await this.volume.hydrate(() => this.disk.killed || this.random() < 0.3);
    else if (dice < 0.94 && this.cuts.length > 0) {
      // A snapshot is given up: what it owed passes to the next.
      const index = Math.floor(this.random() * this.cuts.length);
      const [given] = this.cuts.splice(index, 1);
      this.volume.finishCut(given.boundary, false);
    } else if (dice > 0.99) await this.forget();
  }

  /** The base is gone from the store. The catalog says so first, and gives the pending cuts up. */
  async forget(): Promise<void> {
    this.base = { boundary: NO_BASE, image: this.beginning };
    const given = this.cuts.splice(0);
    await this.volume.forgetHistory('no base');
    for (const { boundary } of given) this.volume.finishCut(boundary, false);
    this.lost = [];
    this.forgotten += 1;
  }

  /** The process is gone; a new one opens the volume and takes up the pending cuts. */
  async reopen(): Promise<void> {
    this.disk.kill();
    this.disk = new CrashDisk();
    this.volume = await this.open();
    this.volume.forgetBefore(this.base.boundary);
    for (const cut of this.cuts) {
      assert.equal(this.volume.resumeCut(cut.boundary), undefined);
      for (const block of cut.captured) this.volume.captured(cut.boundary, block);
    }
    await this.checkNow();
    for (const cut of this.cuts) await this.check(cut);
  }
}

for (const restored of [false, true]) {
  const what = restored ? 'a volume that is being restored' : 'a volume';
  test(`${what} is, at every moment, the bytes that were written to it, and every pending cut as it was`, async (t) => {
    const seed = chooseSeed();
    t.diagnostic(`seed ${seed}`);
    let knownPages = 0;
    let forgotten = 0;
    for (let run = 0; run < 12; run += 1) {
      const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(seed + run), restored, run % 2 === 1);
      for (let step = 0; step < 120; step += 1) {
        await rig.step();
        if (step % 20 === 0) for (const cut of rig.cuts) await rig.check(cut);
      }
      await rig.checkNow();
      for (const cut of rig.cuts) await rig.check(cut);
      await rig.volume.close();
      await rig.reopen();
      assert.deepEqual(rig.lost, []);
      await rig.volume.close();
      knownPages += rig.knownPages;
      forgotten += rig.forgotten;
    }
    assert.ok(forgotten > 0);
    assert.ok(knownPages > 0, 'it was never known which pages of a block had changed');
  });

  test(`${what} that is killed at any change loses no acknowledged write and no pending cut`, async (t) => {
    const seed = chooseSeed();
    t.diagnostic(`seed ${seed}`);
    let kills = 0;
    for (let run = 0; run < 60; run += 1) {
      const random = seededRandom(seed + run);
      const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, random, restored, run % 2 === 1);
      for (let life = 0; life < 4; life += 1) {
        rig.disk.killAfter(Math.floor(random() * 120));
        try {
          for (let step = 0; step < 80; step += 1) await rig.step();
        } catch (error) {
          if (!(error instanceof KilledError) && !rig.disk.killed)
            throw new Error(`seed ${seed} run ${run}`, { cause: error });
          kills += 1;
        }
        try {
          await rig.reopen();
        } catch (error) {
          throw new Error(`seed ${seed} run ${run} life ${life}`, { cause: error });
        }
      }
      await rig.volume.close();
    }
    t.diagnostic(`${kills} kills`);
    assert.ok(kills > 50);
  });
}

test('the model finds a volume that forgets to save the old page', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(1), false);
  await rig.write();
  await rig.cut();
  // The planted bug: a write that goes past the volume, straight to its file.
  const file = rig.disk.open(`${rig.directory}/data.00`, 'read-write');
  file.write(randomBytes(SIZE), 0, SIZE, 0);
  await assert.rejects(rig.check(rig.cuts[0]), /is wrong/);
  rig.disk.kill();
});

for (const older of ['catalog', 'volume'] as const) {
  test(`where the ${older} alone was put back from an older copy, the next snapshot is right all the same`, async (t) => {
    const seed = chooseSeed();
    t.diagnostic(`seed ${seed}`);
    const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(seed), false);
    const next = async (): Promise<void> => {
      for (let write = 0; write < 3; write += 1) await rig.write();
      await rig.cut();
      await rig.upload(true);
    };
    await next();
    await rig.volume.close();
    const then = { base: rig.base, model: Buffer.from(rig.model), copy: `${rig.directory}-copy` };
    cpSync(rig.directory, then.copy, { recursive: true });
    rig.volume = await rig.open();
    for (let set = 0; set < 3; set += 1) await next();
    await rig.volume.close();
    if (older === 'catalog') rig.base = then.base;
    else {
      rmSync(rig.directory, { recursive: true });
      renameSync(then.copy, rig.directory);
      then.model.copy(rig.model);
    }
    rig.volume = await rig.open();
    rig.volume.forgetBefore(rig.base.boundary);
    await rig.checkNow();
    await rig.cut();
    for (let write = 0; write < 5; write += 1) await rig.write();
    await rig.upload(true);
    // And the one after it is incremental again.
    await rig.cut();
    assert.equal(rig.volume.changedBlocks(rig.cuts[0].boundary, rig.base.boundary, 0, BLOCKS).compareAll, false);
    await rig.upload(true);
    await rig.volume.close();
  });
}

test('a block that comes in while a cut is read, as the last of its volume, is in the snapshot', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(9), true);
  await rig.cut();
  const [{ boundary, image }] = rig.cuts;
  const files = new CutFiles(rig.disk, rig.directory, SIZE, undefined, rig.volume.hydrating);
  const target = Buffer.alloc(BLOCK_BYTES);
  const read = (ask: (asked: readonly number[]) => Promise<BlockAsOfCut[]>): Promise<boolean[]> =>
    files.read([{ block: 1, pages: ALL_PAGES }], target, ask);
  const [local] = await read(async (asked) => {
    // Between the read of the file and the answer, which was the next thing to happen once, all of it is fetched.
    await rig.volume.hydrate(() => false);
    return asked.map((block) => rig.volume.blockAsOfCut(boundary, block));
  });
  assert.ok(local);
  assert.ok(target.equals(image.subarray(BLOCK_BYTES, 2 * BLOCK_BYTES)));
  files.close();
  rig.cuts = [];
  await rig.volume.close();
});

test('a clean end makes all durable that the next opening believes, what uploads have written down too', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(10), true);
  await rig.write();
  await rig.cut();
  await rig.write();
  const [{ boundary }] = rig.cuts.splice(0);
  const journal = new FileJournal(rig.disk.open(`${rig.directory}/cut-${boundary}.upload`, 'create'));
  journal.append({ kind: 'blocks', stored: [], zero: [], same: [1] });
  journal.close();
  rig.disk.synced.length = 0;
  await rig.volume.close();
  const synced = new Set(rig.disk.synced.map((path) => path.slice(rig.directory.length + 1)));
  for (const name of readdirSync(rig.directory)) {
    // The state is replaced as a whole; of the marks there is a copy that is synced, which alone is believed afterwards.
    if (name === 'volume.json' || name === 'lock' || name === 'hydrated') continue;
    assert.ok(synced.has(name), `${name} was not synced`);
  }
  // Lost with the power: no block that the guest had written is taken for one that is still to be fetched.
  rmSync(`${rig.directory}/hydrated`);
  rig.disk = new CrashDisk();
  rig.bootId = 'boot 2';
  rig.volume = await rig.open();
  await rig.checkNow();
  await rig.volume.close();
});

test('past the bound on old pages the snapshots give way, never the writes', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(2), false);
  rig.disk.kill();
  rig.disk = new CrashDisk();
  rig.stagingLimitBytes = 64 * PAGE_BYTES;
  rig.volume = await rig.open();
  const bytes = randomBytes(SIZE);
  await rig.volume.write([bytes], SIZE, 0);
  bytes.copy(rig.model);
  await rig.cut();
  const over = randomBytes(SIZE);
  await rig.volume.write([over], SIZE, 0);
  over.copy(rig.model);
  await rig.checkNow();
  assert.equal(rig.lost.length, 1);
  const [{ boundary }] = rig.cuts;
  assert.throws(() => rig.volume.blockAsOfCut(boundary, 0), /overwritten before they were stored/);
  assert.equal(rig.volume.stagedBytes, 0, 'the room is there for others');
  // The next process must not take the cut for whole, whether this one ends well or is killed.
  for (const end of [() => rig.volume.close(), async () => rig.disk.kill()]) {
    await end();
    rig.disk = new CrashDisk();
    rig.volume = await rig.open();
    assert.match(rig.volume.resumeCut(boundary) ?? '', /could be kept/);
  }
  const [lost] = rig.cuts.splice(0);
  await rig.cut();
  assert.ok(rig.cuts[0].boundary > lost.boundary);
  await rig.write();
  await rig.check(rig.cuts[0]);
  await rig.volume.close();
});

test('old pages that the disk has refused, unseen by any sync, cost the snapshot', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(5), false);
  await rig.volume.write([Buffer.alloc(PAGE_BYTES, 1)], PAGE_BYTES, 0);
  await rig.cut();
  const [{ boundary }] = rig.cuts;
  await rig.volume.write([Buffer.alloc(PAGE_BYTES, 2)], PAGE_BYTES, 0);
  await rig.volume.confirmCut(boundary);
  const log = `${rig.directory}/epoch-${String(boundary).padStart(8, '0')}.staging`;
  rig.disk.refused.set(log, new Error('EIO: refused'));
  await assert.rejects(rig.volume.confirmCut(boundary), /refused old bytes.*EIO/);
  assert.equal(rig.lost.length, 1);
  // The guest's bytes are elsewhere.
  await rig.volume.write([Buffer.alloc(PAGE_BYTES, 3)], PAGE_BYTES, 0);
  await rig.volume.flush();
  await rig.volume.close();
});

test('what an upload has written down, and the disk has refused, is not believed by the next one', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(14), false);
  const path = `${rig.directory}/cut-2.upload`;
  const journal = new FileJournal(rig.disk.open(path, 'create'));
  journal.append({ kind: 'blocks', stored: [], zero: [1], same: [2] });
  journal.close();
  const again = new FileJournal(rig.disk.open(path, 'read-write'));
  assert.equal(again.read().length, 1);
  again.close();
  rig.disk.refused.set(path, new Error('EIO: refused'));
  const refused = new FileJournal(rig.disk.open(path, 'read-write'));
  assert.throws(() => refused.read(), /refused what the upload had written down: EIO/);
  refused.close();
  await rig.volume.close();
});

test("an upload's journal that is removed while the volume closes is no fault of the disk's", async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(15), false);
  const { disk } = rig;
  const journal = `${rig.directory}/cut-2.upload`;
  disk.open(journal, 'create').close();
  const list = disk.list.bind(disk);
  disk.list = (directory) => {
    const names = list(directory);
    disk.remove(journal);
    return names;
  };
  await rig.volume.close();
  disk.list = list;
  assert.ok(!disk.exists(journal));
  rig.volume = await rig.open();
  assert.equal(rig.volume.fault, undefined);
  await rig.volume.close();
});

test('bytes of a volume that the disk has refused, unseen by any sync, are found before a snapshot completes', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(6), false);
  await rig.volume.write([Buffer.alloc(PAGE_BYTES, 1)], PAGE_BYTES, 0);
  await rig.cut();
  const [{ boundary }] = rig.cuts.splice(0);
  rig.disk.refused.set(`${rig.directory}/data.00`, new Error('EIO: refused'));
  await assert.rejects(rig.volume.confirmCut(boundary), /closed to all requests.*EIO/);
  // Who asks the kernel is told once: the volume must not say yes to the flush after that.
  await assert.rejects(rig.volume.flush(), /closed to all requests/);
  await rig.volume.close();
  rig.volume = await rig.open();
  assert.match(rig.volume.resumeCut(boundary) ?? '', /refused what was written/);
  await rig.volume.close();
});

test('dirty bits that the disk has refused under a killed process are not believed by the next', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(7), false);
  const page = Buffer.alloc(PAGE_BYTES, 1);
  await rig.volume.write([page], PAGE_BYTES, 0);
  page.copy(rig.model);
  await rig.cut();
  await rig.upload(true);
  await rig.volume.write([page], PAGE_BYTES, BLOCK_BYTES);
  rig.disk.kill();
  rig.disk = new CrashDisk();
  const epoch = `${rig.directory}/epoch-${String(rig.base.boundary).padStart(8, '0')}`;
  rig.disk.refused.set(`${epoch}.dirty`, new Error('EIO: refused'));
  rig.volume = await rig.open();
  const found = Buffer.alloc(PAGE_BYTES);
  await rig.volume.read(found, 0, PAGE_BYTES, BLOCK_BYTES);
  assert.ok(found.equals(page), 'the bytes themselves are not in doubt');
  await rig.volume.prepareCut();
  rig.volume.hold();
  const next = rig.volume.cut();
  rig.volume.release();
  assert.ok(rig.volume.changedBlocks(next, rig.base.boundary, 0, 10).compareAll);
  await rig.volume.close();
});

test('dirty bits that the disk refuses at the close: the next opening is as after a power loss', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(8), false);
  await rig.cut();
  const [{ boundary }] = rig.cuts.splice(0);
  await rig.volume.flush();
  let syncs = 0;
  // The first is of the data.
  rig.disk.failSync = () => (++syncs > 1 ? new Error('EIO: refused') : undefined);
  await assert.rejects(rig.volume.close(), /EIO: refused/);
  rig.disk = new CrashDisk();
  rig.volume = await rig.open();
  assert.match(rig.volume.resumeCut(boundary) ?? '', /refused what was written/);
  await rig.volume.close();
});

test('a full disk under the old pages costs the snapshot, never the write', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(3), false);
  await rig.volume.write([Buffer.alloc(PAGE_BYTES, 1)], PAGE_BYTES, 0);
  await rig.cut();
  let failures = 1;
  rig.disk.failChange = () =>
    failures-- > 0 ? Object.assign(new Error('ENOSPC: full'), { code: 'ENOSPC' }) : undefined;
  await rig.volume.write([Buffer.alloc(PAGE_BYTES, 2)], PAGE_BYTES, 0);
  assert.equal(rig.lost.length, 1);
  await rig.volume.close();
});

test('a discard for whose old pages there is no room is left undone, and costs no snapshot', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(6), false);
  const discarded = async (): Promise<number> => {
    const now = Buffer.alloc(SIZE);
    await rig.volume.read(now, 0, SIZE, 0);
    let pages = 0;
    for (let at = 0; at < SIZE; at += PAGE_BYTES) {
      const page = now.subarray(at, at + PAGE_BYTES);
      if (page.every((byte) => byte === 0)) pages += 1;
      else assert.ok(page.equals(rig.model.subarray(at, at + PAGE_BYTES)));
    }
    return pages;
  };
  await rig.volume.write([randomBytes(SIZE)], SIZE, 0);
  await rig.volume.read(rig.model, 0, SIZE, 0);
  await rig.cut();
  rig.disk.failChange = () => Object.assign(new Error('ENOSPC: full'), { code: 'ENOSPC' });
  await rig.volume.discard(0, SIZE);
  assert.equal(await discarded(), 0);
  rig.disk.failChange = () => undefined;
  await rig.volume.discard(0, BLOCK_BYTES);
  assert.equal(await discarded(), PAGES_PER_BLOCK, 'where there is room it is done');
  assert.deepEqual(rig.lost, []);
  await rig.check(rig.cuts[0]);
  await rig.volume.close();

  rig.stagingLimitBytes = (PAGES_PER_BLOCK + 8) * PAGE_BYTES;
  rig.volume = await rig.open();
  assert.equal(rig.volume.resumeCut(rig.cuts[0].boundary), undefined);
  await rig.volume.discard(BLOCK_BYTES, SIZE - BLOCK_BYTES);
  assert.equal(await discarded(), PAGES_PER_BLOCK);
  assert.deepEqual(rig.lost, []);
  await rig.check(rig.cuts[0]);
  await rig.volume.close();
});

test('a restored volume on a full disk is read from its snapshot, whole, however late some of its blocks come', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(16), true);
  rig.disk.failChange = () => Object.assign(new Error('ENOSPC: full'), { code: 'ENOSPC' });
  for (let round = 0; round < 3; round += 1) {
    const now = Buffer.alloc(SIZE - 2000);
    await rig.volume.read(now, 0, now.length, 1000);
    assert.ok(now.equals(rig.model.subarray(1000, SIZE - 1000)));
  }
  rig.disk.failChange = () => undefined;
  await rig.checkNow();
  await rig.volume.close();
});

test('of what a client that is gone had asked for, the rest is left undone; what was done is whole', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(7), false);
  for (const change of ['zero', 'discard'] as const) {
    await rig.volume.write([randomBytes(SIZE)], SIZE, 0);
    await rig.volume.read(rig.model, 0, SIZE, 0);
    await rig.cut();
    let asked = 0;
    const isGone = (): boolean => asked++ === 1;
    const begun = change === 'zero' ? rig.volume.zero(0, SIZE, false, isGone) : rig.volume.discard(0, SIZE, isGone);
    await assert.rejects(async () => await begun, /gone/);
    rig.model.fill(0, 0, 2 * BLOCK_BYTES);
    await rig.checkNow();
    await rig.check(rig.cuts[0]);
    await rig.upload(true);
  }
  assert.deepEqual(rig.lost, []);
  await rig.volume.close();
});

test('after a sync that failed every request fails, until the volume is opened anew', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(4), false);
  const page = Buffer.alloc(PAGE_BYTES, 1);
  await rig.cut();
  rig.volume.write([page], PAGE_BYTES, 0);
  let failures = 1;
  rig.disk.failSync = () => (failures-- > 0 ? new Error('EIO: the disk has lost it') : undefined);
  const refused = rig.volume.flush();
  // One that waits for that sync to end, since something was written meanwhile; the disk would say yes to it.
  rig.volume.write([page], PAGE_BYTES, PAGE_BYTES);
  const queued = rig.volume.flush();
  await assert.rejects(refused, /failed to sync.*EIO: the disk has lost it/);
  await assert.rejects(queued, /is closed to all requests/);
  assert.equal(rig.lost.length, 1, 'the pending cut is given up');
  const requests: [string, () => unknown][] = [
    // The kernel has forgotten that the page is not on the disk: a second sync would say yes.
    ['flush', () => rig.volume.flush()],
    ['read', () => rig.volume.read(Buffer.alloc(PAGE_BYTES), 0, PAGE_BYTES, 0)],
    ['write where one has been', () => rig.volume.write([page], PAGE_BYTES, 0)],
    ['write elsewhere', () => rig.volume.write([page], PAGE_BYTES, BLOCK_BYTES)],
    ['zero', () => rig.volume.zero(0, PAGE_BYTES, false)],
    ['discard', () => rig.volume.discard(0, PAGE_BYTES)],
    ['hold', () => rig.volume.hold()],
  ];
  for (const [what, request] of requests) {
    await assert.rejects(async () => await request(), /is closed to all requests/, what);
  }
  await rig.volume.close();
  rig.volume = await rig.open();
  assert.match(rig.volume.resumeCut(rig.cuts[0].boundary) ?? '', /its disk refused what was written/);
  const [lost] = rig.cuts.splice(0);
  await rig.cut();
  const { boundary } = rig.cuts[0];
  assert.ok(boundary > lost.boundary, 'its number does not come again');
  assert.equal(rig.volume.changedBlocks(boundary, asEpoch(1), 0, 1).compareAll, true);
  const after = Buffer.alloc(PAGE_BYTES);
  rig.volume.read(after, 0, PAGE_BYTES, 0);
  assert.deepEqual(after, page);
  await rig.volume.flush();
  await rig.volume.close();
});

test('a volume whose last sync is refused says so, and can be opened again', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(5), false);
  rig.disk.failSync = () => new Error('EIO');
  await assert.rejects(rig.volume.close(), /failed to sync.*EIO/);
  rig.disk.failSync = () => undefined;
  rig.volume = await rig.open();
  await rig.volume.flush();
  await rig.volume.close();
});

test('where the files for a cut cannot be made, nothing is left of them, and the next attempt makes them', async (t) => {
  const rig = await Rig.make(temporaryDirectory(t), seededRandom(1), false);
  const before = readdirSync(rig.directory);
  for (let fail = 0, done = false; !done; fail += 1) {
    let changes = 0;
    rig.disk.failChange = () =>
      changes++ === fail ? Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' }) : undefined;
    done = await rig.volume.prepareCut().then(
      () => true,
      (error: Error) => {
        assert.match(error.message, /ENOSPC/);
        assert.deepEqual(readdirSync(rig.directory), before, `failed at change ${fail}`);
        return false;
      },
    );
    if (done) assert.ok(fail > 2, 'no change ever failed');
  }
  rig.disk.failChange = () => undefined;
  await rig.write();
  await rig.cut();
  await rig.write();
  await rig.check(rig.cuts[0]);
  await rig.volume.close();
});

test('a volume that grows while it is cut has all that is written to its new end, and the cut has what was before', async (t) => {
  for (const when of [0, 1, 2, 3, 5, 8]) {
    const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(11), true);
    await rig.write();
    await rig.volume.prepareCut();
    const growing = rig.volume.grow(2 * SIZE);
    for (let turn = 0; turn < when; turn += 1) await new Promise(setImmediate);
    await rig.cut();
    await rig.write();
    await growing;
    const bytes = randomBytes(2 * PAGE_BYTES);
    await rig.volume.write([bytes], bytes.length, 2 * SIZE - bytes.length);
    await rig.write();
    await rig.check(rig.cuts[0]);
    await rig.cut();
    const { blocks } = rig.volume.changedBlocks(rig.cuts[1].boundary, rig.cuts[0].boundary, BLOCKS, BLOCKS);
    assert.deepEqual(blocks, [2 * BLOCKS - 1]);
    await rig.volume.close();
    rig.volume = await rig.open();
    assert.equal(rig.volume.sizeBytes, 2 * SIZE);
    const found = Buffer.alloc(bytes.length);
    await rig.volume.read(found, 0, bytes.length, 2 * SIZE - bytes.length);
    assert.ok(found.equals(bytes));
    await rig.checkNow();
    await rig.volume.close();
  }
});

test('changes of a volume’s state that come at once are all there; one that fails is not, and spoils no other', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(12), true);
  await rig.volume.close();
  const state = readVolumeState(rig.disk, rig.directory);
  const saved = new SavedState(rig.disk, rig.directory, state);
  let changes = 0;
  rig.disk.failChange = () => (changes++ === 1 ? Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' }) : undefined);
  const outcomes = await Promise.allSettled([
    saved.save({ sizeBytes: 2 * SIZE }),
    saved.save({ trustedFrom: asEpoch(9) }),
    saved.save({ hydrating: false }),
  ]);
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  );
  assert.deepEqual(readVolumeState(rig.disk, rig.directory), { ...state, sizeBytes: 2 * SIZE, hydrating: false });
});

for (const [what, spoil, reason] of [
  ['after a power loss', (rig: Rig) => Object.assign(rig, { bootId: 'boot 2' }), /lost power/],
  [
    'where the disk has refused the beginning of dirty bits',
    (rig: Rig) => {
      const dirty = openSync(`${rig.directory}/epoch-00000001.dirty`, 'r+');
      writeSync(dirty, Buffer.alloc(PAGE_BYTES));
      closeSync(dirty);
    },
    /its disk refused/,
  ],
] as const) {
  test(`${what} pending cuts are lost and say why, and the next cut compares everything`, async (t) => {
    const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(4), false);
    await rig.volume.write([Buffer.alloc(PAGE_BYTES, 1)], PAGE_BYTES, 0);
    await rig.cut();
    const pending = rig.cuts[0].boundary;
    rig.disk.kill();
    spoil(rig);
    rig.disk = new CrashDisk();
    rig.volume = await rig.open();
    assert.match(rig.volume.resumeCut(pending) ?? '', reason);
    const read = Buffer.alloc(PAGE_BYTES);
    await rig.volume.read(read, 0, PAGE_BYTES, 0);
    assert.ok(read.equals(Buffer.alloc(PAGE_BYTES, 1)));
    rig.cuts = [];
    await rig.cut();
    const { blocks, compareAll } = rig.volume.changedBlocks(rig.cuts[0].boundary, asEpoch(1), 0, BLOCKS);
    assert.equal(compareAll, true);
    assert.deepEqual(blocks, [0]);
    await rig.volume.close();
  });
}

for (const gone of ['refused', 'taken away']) {
  test(`marks of restored blocks whose beginning was ${gone}: what was flushed is there, pending cuts are lost and say why`, async (t) => {
    const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(15), true);
    const flushed = Buffer.alloc(PAGE_BYTES, 1);
    await rig.volume.write([flushed], PAGE_BYTES, 0);
    await rig.volume.flush();
    await rig.cut();
    const [{ boundary }] = rig.cuts.splice(0);
    rig.disk.kill();
    rig.disk = new CrashDisk();
    const path = `${rig.directory}/hydrated`;
    if (gone === 'taken away') rmSync(path);
    else {
      const file = openSync(path, 'r+');
      writeSync(file, Buffer.alloc(4096), 0, 4096, 0);
      closeSync(file);
    }
    rig.volume = await rig.open();
    assert.match(rig.volume.resumeCut(boundary) ?? '', /its disk refused what was written/);
    const all = Buffer.alloc(SIZE);
    await rig.volume.read(all, 0, SIZE, 0);
    assert.ok(all.subarray(0, PAGE_BYTES).equals(flushed));
    assert.ok(all.subarray(PAGE_BYTES).equals(rig.model.subarray(PAGE_BYTES)));
    await rig.volume.close();
  });
}

test('a clean stop is not taken for a power loss after a reboot', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(5), false);
  await rig.write();
  await rig.cut();
  await rig.volume.close();
  rig.bootId = 'boot 2';
  await rig.reopen();
  await rig.volume.close();
});

test('writes wait at the gate while it is closed, reads do not, and a release lets them through', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(6), false);
  rig.volume.hold();
  let written = false;
  const writing = Promise.resolve(rig.volume.write([Buffer.alloc(PAGE_BYTES, 7)], PAGE_BYTES, 0)).then(() => {
    written = true;
  });
  const read = Buffer.alloc(PAGE_BYTES, 1);
  await rig.volume.read(read, 0, PAGE_BYTES, 0);
  assert.equal(read[0], 0);
  assert.equal(written, false);
  rig.volume.release();
  await writing;
  await rig.volume.read(read, 0, PAGE_BYTES, 0);
  assert.equal(read[0], 7);
  await rig.volume.close();
});

test('an encrypted volume opens with its own key alone, and its files hold nothing of what was written', async (t) => {
  const rig = await Rig.make(`${temporaryDirectory(t)}/vol`, seededRandom(8), false, true);
  const secret = Buffer.from('a secret that must not be found');
  await rig.volume.write([secret], secret.length, 12_345);
  await rig.cut();
  await rig.volume.write([Buffer.alloc(100_000, 1)], 100_000, 0);
  await rig.volume.close();
  for (const name of readdirSync(rig.directory)) {
    assert.ok(!readFileSync(`${rig.directory}/${name}`).includes(secret), `${name} holds it`);
  }
  const { disk, bootId } = rig;
  const environment = {
    disk,
    bootId,
    stagingLimitBytes: 1 << 30,
    onCutLost: () => undefined,
    onFault: () => undefined,
    isSuspect: false,
  };
  for (const wrong of [undefined, DataKey.generate()]) {
    await assert.rejects(
      LocalVolume.open(rig.directory, environment, undefined, wrong, { base: FIRST, newest: FIRST }),
      WrongKeyError,
    );
  }
  await LocalVolume.open(rig.directory, environment, undefined, rig.key, { base: FIRST, newest: FIRST });
});

test('the pages of an encrypted volume are AES-256-XTS by the page’s number, and holes are zeroes', () => {
  const key = randomBytes(64);
  const cipher = new PageCipher(key);
  const plain = randomBytes(4 * PAGE_BYTES);
  const stored = Buffer.alloc(plain.length);
  const first = 2 ** 33 + 5;
  cipher.encrypt(plain, stored, first);
  for (let page = 0; page < 4; page += 1) {
    const tweak = Buffer.alloc(16);
    tweak.writeBigUInt64LE(BigInt(first + page));
    const other = createCipheriv('aes-256-xts', key, tweak);
    const expected = other.update(plain.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES));
    assert.ok(stored.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES).equals(expected));
  }
  // A torn first write: what never came is zeroes, not garbage.
  stored.fill(0, PAGE_BYTES + 512);
  cipher.decrypt(stored, first);
  assert.ok(stored.subarray(0, PAGE_BYTES + 512).equals(plain.subarray(0, PAGE_BYTES + 512)));
  assert.ok(stored.subarray(PAGE_BYTES + 512).every((byte) => byte === 0));
  cipher.close();
});
