import { setImmediate } from 'node:timers/promises';
import type { DataKey } from '../encryption/data-key.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import type { Patience } from '../objects/patience.ts';
import { inOrder } from '../types/in-order.ts';
import { keepLatest } from '../types/keep-latest.ts';
import { giveBack } from '../types/memory.ts';
import type { Sha256 } from '../types/units.ts';
import { byPlace, decodeRecord, follows, type RecordLocation, recordsOf } from './block-encoding.ts';
import { fetchPatiently, isLost } from './fetch.ts';
import { BLOCKS_AHEAD, Manifest, weightOfLeaf } from './manifest.ts';
import { LEAF_BLOCKS, type Leaf } from './manifest-node.ts';
import { packKey } from './pack.ts';

/** Records that lie side by side are fetched with one request, up to this many: each request is a way to a store and back. */
const RUN_RECORDS = 8;
/** So many are in memory or under way: each is 512 KiB at most, twice while it is decoded. Beside other work they are few. */
const RECORDS_BESIDE_OTHERS = 24;
/** For who does nothing else, and may be far from the store. */
export const RECORDS_ALONE = 64;

/** So many are remembered, whole or not: some five MiB. A store may have hundreds of millions of records. */
const RECORDS_REMEMBERED = 10_000;
/** As many as a hundred TiB have: some twenty-five MiB. */
const LEAVES_REMEMBERED = 200_000;

/** A snapshot to be checked, with the key of an encrypted one. */
export type VerifiedSnapshot = {
  snapshotId: string;
  /** Snapshots of one volume share most of what they have. */
  volumeId: string;
  /** ISO 8601. */
  startTime: string;
  root: Sha256;
  key: DataKey | undefined;
};

/** What was found wrong in a pack (or, without an object, in a manifest). */
type Finding = Wrong & { object: string | undefined; block: number | undefined };

/** `lost`: for good; else the store did not answer, and may do so later. */
type Wrong = { what: string; lost: boolean };

/** A record, how many bytes it must have when it is decoded, and where it is named. */
type NamedRecord = { record: RecordLocation; bytes: number; block: number; leaf: Sha256 };

/** Something in the store that is not as it was put there, and the snapshots that need it. */
export type Damage = {
  object: string;
  what: string;
  /** Gone or wrong for good; else the store did not answer, and what it has may be whole. */
  lost: boolean;
  affected: { snapshotId: string; blocks: number[] }[];
};

export type Verified = { snapshots: number; blocks: number; bytes: number; damage: Damage[] };

/** What was read, so that it is not read again for other snapshots; for one call, or several. */
export class ReadBefore {
  readonly records = new Map<string, Promise<Wrong | undefined>>();
  /** Of which every record was found to be whole: most snapshots share most of their leaves with others. */
  readonly wholeLeaves = new Map<Sha256, true>();
  readonly mostRecords: number;

  constructor(mostRecords = RECORDS_REMEMBERED) {
    this.mostRecords = mostRecords;
  }
}

type VerifyOptions = { recordsAtOnce?: number; signal?: AbortSignal; readBefore?: ReadBefore };

/**
 * Reads everything that snapshots name, and checks it against its hashes. What snapshots of one volume share is read once,
 * and mostly what others do: how much is remembered for that does not grow with the store.
 * @param rootNow which manifest a snapshot has by now: one that was written anew while it was read is read again by its
 *   new one; undefined when the snapshot is gone, and then nothing is said of it
 * @param onProgress told of the stored bytes that were read so far; the next are read when it is done
 */
export async function verifySnapshots(
  store: ObjectStore,
  snapshots: readonly VerifiedSnapshot[],
  patience: Patience,
  rootNow: (snapshotId: string) => Promise<Sha256 | undefined>,
  onProgress: (bytes: number) => void | Promise<void>,
  { recordsAtOnce = RECORDS_BESIDE_OTHERS, signal, readBefore = new ReadBefore() }: VerifyOptions = {},
): Promise<Verified> {
  const { records: checked, wholeLeaves, mostRecords } = readBefore;
  const damage = new Map<string, Damage>();
  const verified: Verified = { snapshots: snapshots.length, blocks: 0, bytes: 0, damage: [] };
  const note = (object: string, { what, lost, block }: Finding, snapshotId: string): void => {
    const found = damage.get(`${object} ${what}`) ?? { object, what, lost, affected: [] };
    damage.set(`${object} ${what}`, found);
    let affected = found.affected.find((each) => each.snapshotId === snapshotId);
    if (affected === undefined) {
      affected = { snapshotId, blocks: [] };
      found.affected.push(affected);
    }
    if (block !== undefined) affected.blocks.push(block);
  };
  /** @param earlier that of the volume's snapshot before this one */
  const readAll = async (manifest: Manifest, earlier: Manifest | undefined): Promise<Finding[]> => {
    const findings: Finding[] = [];
    /** Which of those that were read are whole. */
    const leaves = new Map<Sha256, boolean>();
    const check = async (run: readonly NamedRecord[]) => {
      signal?.throwIfAborted();
      // Taken out here: what is remembered of others may make room for what is read now.
      const wrong = run.map((named) => checked.get(textOf(named)));
      const isNew = wrong.map((known) => known === undefined);
      const fresh = run.filter((_, index) => isNew[index]);
      // With some that were read for another snapshot in their midst, they lie side by side no more.
      for (const together of fresh.length === run.length ? [run] : fresh.map((named) => [named])) {
        const found = checkRun(store, together, patience, manifest.key);
        for (const [index, named] of together.entries()) {
          const ofThis = found.then((all) => all[index]);
          wrong[run.indexOf(named)] = ofThis;
          keepLatest(checked, mostRecords, textOf(named), ofThis);
        }
      }
      const all = await Promise.all(wrong);
      return run.map((named, index) => ({ ...named, isNew: isNew[index], wrong: all[index] }));
    };
    try {
      const onLeaf = (leaf: Sha256): void => {
        // It may be at another place in the same manifest, and known to be damaged.
        if (!leaves.has(leaf)) leaves.set(leaf, true);
      };
      const records = recordsBut(wholeLeaves, manifest, earlier, onLeaf);
      for await (const run of inOrder(runsIn(records), recordsAtOnce, check, ({ length }) => length)) {
        for (const { record, block, leaf, isNew, wrong } of run) {
          if (isNew) {
            verified.blocks += 1;
            verified.bytes += record.length;
            await onProgress(verified.bytes);
          }
          if (wrong === undefined) continue;
          leaves.set(leaf, false);
          findings.push({ object: packKey(record.pack), ...wrong, block });
        }
      }
      for (const [leaf, isWhole] of leaves) if (isWhole) keepLatest(wholeLeaves, LEAVES_REMEMBERED, leaf, true);
    } catch (error) {
      signal?.throwIfAborted();
      // The rest of this manifest cannot be reached.
      findings.push({ object: undefined, what: (error as Error).message, lost: isLost(error), block: undefined });
    }
    return findings;
  };
  let before: { volumeId: string; manifest: Manifest } | undefined;
  for (const { snapshotId, volumeId, root, key } of [...snapshots].sort(byLineage)) {
    const earlier = before?.volumeId === volumeId ? before.manifest : undefined;
    let findings: Finding[] = [];
    for (let read: Sha256 | undefined, now: Sha256 | undefined = root; now !== undefined && now !== read; ) {
      read = now;
      const manifest = new Manifest(store, read, patience, key);
      findings = await readAll(manifest, earlier);
      before = { volumeId, manifest };
      if (findings.length === 0) break;
      now = await rootNow(snapshotId);
      if (now === undefined) findings = [];
    }
    for (const finding of findings) note(finding.object ?? `the manifest of ${snapshotId}`, finding, snapshotId);
  }
  verified.damage = [...damage.values()];
  // They were read in the order of packs; who reads a list of blocks looks for them by number.
  for (const { affected } of verified.damage) for (const { blocks } of affected) blocks.sort((a, b) => a - b);
  return verified;
}

/** Those of one volume follow one another, from the first on: each shares most with the one before. */
function byLineage(a: VerifiedSnapshot, b: VerifiedSnapshot): number {
  if (a.volumeId !== b.volumeId) return a.volumeId < b.volumeId ? -1 : 1;
  return a.startTime < b.startTime ? -1 : Number(a.startTime > b.startTime);
}

/**
 * What a manifest names and is not known to be whole: of each leaf, as it lies in packs.
 * @param whole leaves of which all is
 * @param onLeaf told of each other leaf, before its records come (there may be none)
 */
async function* recordsBut(
  whole: Map<Sha256, true>,
  manifest: Manifest,
  earlier: Manifest | undefined,
  onLeaf: (leaf: Sha256) => void,
): AsyncGenerator<NamedRecord> {
  const others = async function* () {
    for await (const each of manifest.leafNodes()) {
      // The next snapshot of its volume is likely to have it, too.
      if (whole.has(each.node)) keepLatest(whole, LEAVES_REMEMBERED, each.node, true);
      else yield each;
    }
  };
  const read = async (each: { number: number; node: Sha256 }) => ({
    ...each,
    leaf: await manifest.readLeaf(each.node),
    known: await knownLeaf(whole, earlier, each.number),
  });
  for await (const { number, node, leaf, known } of inOrder(others(), BLOCKS_AHEAD, read, weightOfLeaf)) {
    onLeaf(node);
    const records = [...leaf].flatMap(([slot, location]) => {
      const block = number * LEAF_BLOCKS + slot;
      const before = known?.get(slot);
      const seen = new Set(before === undefined ? [] : recordsOf(before).map(textOf));
      return recordsOf(location)
        .filter((each) => !seen.has(textOf(each)))
        .map(({ record, bytes }) => ({ leaf: node, block, record, bytes }));
    });
    yield* records.sort((a, b) => byPlace(a.record, b.record));
  }
}

/** The leaf at the same place of a manifest that was read before, where all of it was found whole. */
async function knownLeaf(
  whole: ReadonlyMap<Sha256, true>,
  earlier: Manifest | undefined,
  number: number,
): Promise<Leaf | undefined> {
  try {
    const node = await earlier?.leafNode(number);
    return node !== undefined && whole.has(node) ? await earlier?.readLeaf(node) : undefined;
  } catch {
    // Deleted meanwhile, or the store is away: then more is read than need be.
    return undefined;
  }
}

/** A record as a manifest names it: another hash, or length, of the same place is another claim. */
function textOf({ record, bytes }: { record: RecordLocation; bytes: number }): string {
  return `${record.pack} ${record.offset} ${record.length} ${record.encoding} ${record.sha256} ${bytes}`;
}

/** Those that lie side by side together, up to as many as one request fetches. */
async function* runsIn(records: AsyncIterable<NamedRecord>): AsyncGenerator<NamedRecord[]> {
  let run: NamedRecord[] = [];
  for await (const named of records) {
    if (run.length === RUN_RECORDS || (run.length > 0 && !follows(run[run.length - 1].record, named.record))) {
      yield run;
      run = [];
    }
    run.push(named);
  }
  if (run.length > 0) yield run;
}

/**
 * @param run records that lie side by side
 * @returns what is wrong with each; undefined where nothing is
 */
async function checkRun(
  store: ObjectStore,
  run: readonly NamedRecord[],
  patience: Patience,
  key: DataKey | undefined,
): Promise<(Wrong | undefined)[]> {
  const one = (named: NamedRecord): Promise<Wrong | undefined> => checkRecord(store, named, patience, key);
  if (run.length === 1) return [await one(run[0])];
  const { pack, offset: start } = run[0].record;
  const { offset, length } = run[run.length - 1].record;
  try {
    const stored = await store.getRange(packKey(pack), start, offset + length - start);
    const decoded: Buffer[] = [];
    for (const { record, bytes } of run) {
      const at = record.offset - start;
      const where = `the record of ${record.length} bytes at ${record.offset}`;
      decoded.push(await decodeRecord(stored.subarray(at, at + record.length), record, bytes, key, where));
      // The server's thread has other things to do than to hash eight of them in one go.
      await setImmediate();
    }
    for (const bytes of [...decoded, stored]) giveBack(bytes);
    return run.map(() => undefined);
  } catch {
    // One by one it will be seen which of them it is, and whether it stays so.
    return Promise.all(run.map(one));
  }
}

/** @returns what is wrong with a record; undefined where nothing is */
async function checkRecord(
  store: ObjectStore,
  { record, bytes }: NamedRecord,
  patience: Patience,
  key: DataKey | undefined,
): Promise<Wrong | undefined> {
  const { pack, offset, length } = record;
  try {
    await fetchPatiently(patience, async () => {
      const stored = await store.getRange(packKey(pack), offset, length);
      giveBack(await decodeRecord(stored, record, bytes, key, `the record of ${length} bytes at ${offset}`));
      giveBack(stored);
    });
    return undefined;
  } catch (error) {
    return { what: (error as Error).message, lost: isLost(error) };
  }
}

/** Snapshots of which something is lost for good. */
export function damagedFor(damage: readonly Damage[]): Set<string> {
  const lost = damage.filter((each) => each.lost);
  return new Set(lost.flatMap(({ affected }) => affected.map(({ snapshotId }) => snapshotId)));
}
