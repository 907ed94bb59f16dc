import { z } from 'zod';
import { ObjectNotFoundError, type ObjectStore } from '../objects/object-store.ts';
import { type AccountId, type IdOf, parseAccountId, parseId, type SnapshotId } from '../types/ids.ts';
import { inOrder } from '../types/in-order.ts';
import type { Sha256 } from '../types/units.ts';

/** Of all records' keys. */
export const RECORDS_PREFIX = 'snapshots/';
/** A bucket may hold a hundred thousand, and answer in tens of milliseconds. */
const RECORDS_AT_ONCE = 32;

function id<Prefix extends keyof IdOf>(prefix: Prefix): z.ZodType<IdOf[Prefix]> {
  return z.custom<IdOf[Prefix]>((text) => typeof text === 'string' && parseId(prefix, text) !== undefined, {
    message: `Not an id that begins ${prefix}-`,
  });
}

const accountId = z.custom<AccountId>((text) => typeof text === 'string' && parseAccountId(text) !== undefined, {
  message: 'Not an account id of twelve digits',
});

/** Of a manifest's root node. */
const sha256 = z.custom<Sha256>((text) => typeof text === 'string' && /^[0-9a-f]{64}$/.test(text), {
  message: 'Not a SHA-256 of 64 hex digits',
});

/** What the bucket says of a completed snapshot: enough to bring it back with nothing but the bucket. */
const Saved = z.strictObject({
  /** 5 where the archive has it; else 4 where it is in the recycle bin, 3 where there is a lock, 2 where it is encrypted. */
  format: z.union([z.literal(1), z.literal(2), z.literal(3), z.literal(4), z.literal(5)]),
  snapshotId: id('snap'),
  setId: id('set'),
  /** All snapshots of the set, this one too. */
  setSnapshotIds: z.array(id('snap')),
  ownerId: accountId,
  region: z.string(),
  /** Accounts that may make volumes of it, or `all`. */
  sharedWith: z.array(z.string()),
  instanceId: id('i').nullable(),
  volumeId: id('vol'),
  /** The snapshot that it was written on top of, through the EBS direct APIs. */
  parentSnapshotId: id('snap').nullable(),
  volumeSizeGiB: z.number().int().positive(),
  volumeType: z.string(),
  /** How the volume was attached at the cut. */
  deviceName: z.string().nullable(),
  isRoot: z.boolean(),
  description: z.string(),
  tags: z.array(z.strictObject({ key: z.string(), value: z.string() })),
  startTime: z.iso.datetime(),
  completionTime: z.iso.datetime(),
  /** Of the manifest, in the store that has this record. */
  root: sha256,
  /** Blocks that hold data. */
  dataBlocks: z.number().int().nonnegative(),
  /** The data key, wrapped by the KMS key; none where the snapshot is not encrypted. */
  encryption: z.strictObject({ dataKeyId: z.string(), kmsKeyArn: z.string(), wrapped: z.string() }).optional(),
  /** What was asked of LockSnapshot, and not ended by UnlockSnapshot; it may have expired. */
  lock: z
    .strictObject({
      mode: z.enum(['compliance', 'governance']),
      coolOffHours: z.number().int().positive().nullable(),
      createdAt: z.iso.datetime(),
      setAt: z.iso.datetime(),
      durationDays: z.number().int().positive(),
      expiresAt: z.iso.datetime().nullable(),
    })
    .optional(),
  /** Deleted by its owner, who can have it back until then. */
  recycleBin: z.strictObject({ since: z.iso.datetime(), until: z.iso.datetime() }).optional(),
  /** The archive has it, under this root; where it is restored for a while, until then. */
  archive: z
    .strictObject({ root: sha256, since: z.iso.datetime(), restoredUntil: z.iso.datetime().nullable() })
    .optional(),
});

export type SnapshotRecord = z.infer<typeof Saved>;

export function recordKey(snapshotId: string): string {
  return `${RECORDS_PREFIX}${snapshotId}.json`;
}

export async function putSnapshotRecord(store: ObjectStore, record: SnapshotRecord): Promise<void> {
  await store.put(recordKey(record.snapshotId), [Buffer.from(`${JSON.stringify(record, undefined, 2)}\n`)]);
}

/** @throws ObjectNotFoundError; an error that says what is wrong with a record that is not one */
export async function getSnapshotRecord(store: ObjectStore, snapshotId: string): Promise<SnapshotRecord> {
  return readRecord(store, recordKey(snapshotId));
}

export type FoundRecord = { key: string; record: SnapshotRecord } | { key: string; record: undefined; why: string };

/** Every record in a store, read some at a time; one that cannot be read comes with the reason. */
export function listSnapshotRecords(store: ObjectStore): AsyncGenerator<FoundRecord> {
  return inOrder(store.list(RECORDS_PREFIX), RECORDS_AT_ONCE, ({ key }) =>
    readRecord(store, key).then(
      (record) => ({ key, record }),
      (error: Error) => ({ key, record: undefined, why: error.message }),
    ),
  );
}

/** Whose records a store has, readable or not. */
export async function recordedSnapshots(store: ObjectStore): Promise<SnapshotId[]> {
  const ids: SnapshotId[] = [];
  for await (const { key } of store.list(RECORDS_PREFIX)) {
    const id = parseId('snap', key.slice(RECORDS_PREFIX.length).replace(/\.json$/, ''));
    if (id !== undefined) ids.push(id);
  }
  return ids;
}

export async function hasSnapshotRecord(store: ObjectStore, snapshotId: SnapshotId): Promise<boolean> {
  return store.get(recordKey(snapshotId)).then(
    () => true,
    (error: unknown) => {
      if (error instanceof ObjectNotFoundError) return false;
      throw error;
    },
  );
}

async function readRecord(store: ObjectStore, key: string): Promise<SnapshotRecord> {
  const parsed = Saved.safeParse(JSON.parse((await store.get(key)).toString('utf8')));
  if (!parsed.success) {
    throw new Error(`${key} in ${store.url} is no record of version 1 to 5: ${z.prettifyError(parsed.error)}`);
  }
  // By its own name it is asked for, shown and deleted: a copy under another would do that to the first.
  if (recordKey(parsed.data.snapshotId) !== key)
    throw new Error(`${key} in ${store.url} is the record of ${parsed.data.snapshotId}`);
  return parsed.data;
}

export async function removeSnapshotRecord(store: ObjectStore, snapshotId: string): Promise<void> {
  await store.remove([recordKey(snapshotId)]);
}
