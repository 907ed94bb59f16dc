import type { SnapshotRow } from '../../catalog/schema.ts';
import { type Patience, realPatience } from '../../objects/patience.ts';
import { parseId, type SnapshotId } from '../../types/ids.ts';
import type { Call } from '../operation.ts';
import { visibleTo } from '../snapshots/find-snapshot.ts';
import { ebsErrors } from './ebs-errors.ts';
import type { Manifests } from './manifests.ts';
import type { Tokens } from './tokens.ts';

/** A caller waits this long for an object store that fails. */
export function apiPatience(): Patience {
  return realPatience(10_000);
}

/** What the operations share from one request to the next. */
export type EbsMeans = { tokens: Tokens; manifests: Manifests };

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
  return row;
}
