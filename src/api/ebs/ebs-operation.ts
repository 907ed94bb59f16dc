import { isArchived } from '../../catalog/archive.ts';
import type { SnapshotRow } from '../../catalog/schema.ts';
import type { DataPlane } from '../../dataplane/data-plane.ts';
import type { ObjectReader } from '../../objects/object-store.ts';
import { type Patience, realPatience } from '../../objects/patience.ts';
import type { ConcurrencyLimit } from '../../types/concurrency-limit.ts';
import { parseId, type SnapshotId } from '../../types/ids.ts';
import type { Call } from '../operation.ts';
import { visibleTo } from '../snapshots/find-snapshot.ts';
import type { BlockUploads } from './block-uploads.ts';
import { ebsErrors } from './ebs-errors.ts';
import type { Manifests } from './manifests.ts';
import type { Tokens } from './tokens.ts';

/** A caller waits this long for an object store that fails. */
export function apiPatience(): Patience {
  return realPatience(10_000);
}

/** What the operations share from one request to the next. */
export type EbsMeans = {
  tokens: Tokens;
  manifests: Manifests;
  /** The store, to read from. */
  reader: ObjectReader;
  blockUploads: BlockUploads;
  /** Of blocks that are read or stored: each has a MiB or two of memory, and the client may ask for hundreds at once. */
  blocksAtOnce: ConcurrencyLimit;
};

/**
 * The store, for what is done with blocks on this thread. What comes while writes are held for a cut is looked at when they
 * go on: to decode a block takes a millisecond or two, and a hold ends on this thread.
 */
export function readAfterHolds(store: ObjectReader, dataPlane: Pick<DataPlane, 'afterHold'>): ObjectReader {
  const afterHold = async (reading: Promise<Buffer>): Promise<Buffer> => {
    const bytes = await reading;
    await dataPlane.afterHold();
    return bytes;
  };
  return {
    url: store.url,
    get: (key) => afterHold(store.get(key)),
    getRange: (key, offset, length) => afterHold(store.getRange(key, offset, length)),
  };
}

export type EbsOperation<Input, Output> = (input: Input, call: Call, means: EbsMeans) => Promise<Output>;

/** @throws ApiError ValidationException INVALID_SNAPSHOT_ID */
export function readSnapshotId(text: string | undefined): SnapshotId {
  const id = parseId('snap', text ?? '');
  if (id === undefined) throw ebsErrors.invalid(`The snapshot id '${text}' is not valid.`, 'INVALID_SNAPSHOT_ID');
  return id;
}

/** @throws ApiError ResourceNotFoundException */
export async function findSnapshot(call: Call, id: SnapshotId): Promise<SnapshotRow> {
  const row = await call.services.catalog
    .selectFrom('snapshots')
    .selectAll()
    .where('snapshot_id', '=', id)
    .where(visibleTo(call))
    .executeTakeFirst();
  if (row === undefined) throw ebsErrors.noSnapshot(id);
  return row;
}

/** One whose blocks can be read. @throws ApiError ResourceNotFoundException, ValidationException */
export async function findCompleted(call: Call, id: SnapshotId): Promise<SnapshotRow> {
  const row = await findSnapshot(call, id);
  if (row.state !== 'completed') {
    throw ebsErrors.invalid(`The snapshot '${id}' is ${row.state}; it must be completed.`, 'INVALID_SNAPSHOT_ID');
  }
  if (isArchived(row)) {
    throw ebsErrors.invalid(`The snapshot '${id}' is archived; it must be restored.`, 'INVALID_SNAPSHOT_ID');
  }
  return row;
}
