import { setImmediate } from 'node:timers/promises';
import type { DataKey } from '../encryption/data-key.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import type { Patience } from '../objects/patience.ts';
import { inOrder } from '../types/in-order.ts';
import { giveBack } from '../types/memory.ts';
import type { Sha256 } from '../types/units.ts';
import { byPlace, decodeRecord, follows, type RecordLocation, recordsOf } from './block-encoding.ts';
import { fetchPatiently, isLost } from './fetch.ts';
import { BLOCKS_AHEAD, Manifest, weightOfLeaf } from './manifest.ts';
import { LEAF_BLOCKS } from './manifest-node.ts';
import { packKey } from './pack.ts';

/** Records that lie side by side are fetched with one request, up to this many: each request is a way to a store and back. */
const RUN_RECORDS = 8;
/** So many are in memory or under way: each is 512 KiB at most, twice while it is decoded. Beside other work they are few. */
const RECORDS_BESIDE_OTHERS = 24;
/** For who does nothing else, and may be far from the store. */
export const RECORDS_ALONE = 64;

/** A snapshot to be checked, with the key of an encrypted one. */
export type VerifiedSnapshot = { snapshotId: string; root: Sha256; key: DataKey | undefined };

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

/**
 * Reads everything that snapshots name, and checks it against its hashes. What several share is read once.
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
  { recordsAtOnce = RECORDS_BESIDE_OTHERS, signal }: { recordsAtOnce?: number; signal?: AbortSignal } = {},
): Promise<Verified> {
  const checked = new Map<string, Promise<Wrong | undefined>>();
  /** Of which every record was found to be whole: most snapshots share most of their leaves with others. */
  const wholeLeaves = new Set<Sha256>();
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
  const readAll = async (root: Sha256, dataKey: DataKey | undefined): Promise<Finding[]> => {
    const findings: Finding[] = [];
    const leaves = new Map<Sha256, { isWhole: boolean }>();
    const check = async (run: readonly NamedRecord[]) => {
      signal?.throwIfAborted();
      const isNew = run.map((named) => !checked.has(keyOf(named)));
      const fresh = run.filter((_, index) => isNew[index]);
      // With some that were read for another snapshot in their midst, they lie side by side no more.
      for (const together of fresh.length === run.length ? [run] : fresh.map((named) => [named])) {
        const found = checkRun(store, together, patience, dataKey);
        for (const [index, named] of together.entries()) {
          const ofThis = found.then((wrong) => wrong[index]);
          checked.set(keyOf(named), ofThis);
        }
      }
      const wrong = await Promise.all(run.map((named) => checked.get(keyOf(named))));
      return run.map((named, index) => ({ ...named, isNew: isNew[index], wrong: wrong[index] }));
    };
    try {
      const records = recordsBut(wholeLeaves, new Manifest(store, root, patience, dataKey));
      for await (const run of inOrder(runsIn(records), recordsAtOnce, check, ({ length }) => length)) {
        for (const { record, block, leaf, isNew, wrong } of run) {
          if (isNew) {
            verified.blocks += 1;
            verified.bytes += record.length;
            await onProgress(verified.bytes);
          }
          const seen = leaves.get(leaf) ?? { isWhole: true };
          leaves.set(leaf, seen);
          if (wrong === undefined) continue;
          seen.isWhole = false;
          findings.push({ object: packKey(record.pack), ...wrong, block });
        }
      }
      for (const [leaf, { isWhole }] of leaves) if (isWhole) wholeLeaves.add(leaf);
    } catch (error) {
      signal?.throwIfAborted();
      // The rest of this manifest cannot be reached.
      findings.push({ object: undefined, what: (error as Error).message, lost: isLost(error), block: undefined });
    }
    return findings;
  };
  for (const { snapshotId, root, key } of snapshots) {
    let findings: Finding[] = [];
    for (let read: Sha256 | undefined, now: Sha256 | undefined = root; now !== undefined && now !== read; ) {
      read = now;
      findings = await readAll(read, key);
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

/** What a manifest names in other leaves than the given ones: of each leaf, as it lies in packs. */
async function* recordsBut(leaves: ReadonlySet<Sha256>, manifest: Manifest): AsyncGenerator<NamedRecord> {
  const others = async function* () {
    for await (const each of manifest.leafNodes()) if (!leaves.has(each.node)) yield each;
  };
  const read = async (each: { number: number; node: Sha256 }) => ({
    ...each,
    leaf: await manifest.readLeaf(each.node),
  });
  for await (const { number, node, leaf } of inOrder(others(), BLOCKS_AHEAD, read, weightOfLeaf)) {
    const records = [...leaf].flatMap(([slot, location]) => {
      const block = number * LEAF_BLOCKS + slot;
      return recordsOf(location).map(({ record, bytes }) => ({ leaf: node, block, record, bytes }));
    });
    yield* records.sort((a, b) => byPlace(a.record, b.record));
  }
}

function keyOf({ record }: NamedRecord): string {
  return `${record.pack} ${record.offset}`;
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
