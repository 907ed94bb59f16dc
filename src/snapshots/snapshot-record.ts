import { z } from 'zod';
import type { ObjectStore } from '../objects/object-store.ts';

/** What the bucket says of a completed snapshot: enough to bring it back with nothing but the bucket. */
const Saved = z.strictObject({
  format: z.literal(1),
  snapshotId: z.string(),
  setId: z.string(),
  /** All snapshots of the set, this one too. */
  setSnapshotIds: z.array(z.string()),
  ownerId: z.string(),
  region: z.string(),
  /** Accounts that may make volumes of it, or `all`. */
  sharedWith: z.array(z.string()),
  instanceId: z.string().nullable(),
  volumeId: z.string(),
  volumeSizeGiB: z.number().int().positive(),
  volumeType: z.string(),
  /** How the volume was attached at the cut. */
  deviceName: z.string().nullable(),
  isRoot: z.boolean(),
  description: z.string(),
  tags: z.array(z.strictObject({ key: z.string(), value: z.string() })),
  startTime: z.iso.datetime(),
  completionTime: z.iso.datetime(),
  /** SHA-256 of the manifest's root node. */
  root: z.string().regex(/^[0-9a-f]{64}$/),
  /** Blocks that hold data. */
  dataBlocks: z.number().int().nonnegative(),
});

export type SnapshotRecord = z.infer<typeof Saved>;

export function recordKey(snapshotId: string): string {
  return `snapshots/${snapshotId}.json`;
}

export async function putSnapshotRecord(store: ObjectStore, record: SnapshotRecord): Promise<void> {
  await store.put(recordKey(record.snapshotId), [Buffer.from(`${JSON.stringify(record, undefined, 2)}\n`)]);
}

/** @throws ObjectNotFoundError; an error that says what is wrong with a record that is not one */
export async function getSnapshotRecord(store: ObjectStore, snapshotId: string): Promise<SnapshotRecord> {
  const text = (await store.get(recordKey(snapshotId))).toString('utf8');
  const parsed = Saved.safeParse(JSON.parse(text));
  if (!parsed.success) {
    throw new Error(
      `${recordKey(snapshotId)} in ${store.url} is no version 1 record: ${z.prettifyError(parsed.error)}`,
    );
  }
  return parsed.data;
}

export async function removeSnapshotRecord(store: ObjectStore, snapshotId: string): Promise<void> {
  await store.remove(recordKey(snapshotId));
}
