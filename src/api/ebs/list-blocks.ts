import type {
  ListChangedBlocksRequest,
  ListChangedBlocksResponse,
  ListSnapshotBlocksRequest,
  ListSnapshotBlocksResponse,
} from '@aws-sdk/client-ebs';
import type { SnapshotRow } from '../../catalog/schema.ts';
import { type ChangedBlock, changedBlocks } from '../../snapshots/changed-blocks.ts';
import { BLOCK_BYTES } from '../../types/units.ts';
import type { Call } from '../operation.ts';
import { NO_VOLUME } from '../snapshots/new-set.ts';
import { ebsErrors } from './ebs-errors.ts';
import { type EbsOperation, findCompleted, readSnapshotId } from './ebs-operation.ts';

const PAGE = { least: 100, most: 10_000 };
/** They take this thread some milliseconds. */
const BLOCKS_IN_ONE_GO = 500;

/** The blocks of a snapshot that hold data. */
export const listSnapshotBlocks: EbsOperation<ListSnapshotBlocksRequest, ListSnapshotBlocksResponse> = async (
  input,
  call,
  { tokens, manifests },
) => {
  const id = readSnapshotId(input.SnapshotId);
  await call.permit({ type: 'snapshot', id });
  const snapshot = await findCompleted(call, id);
  const manifest = await manifests.of(snapshot);
  const list = `${id}`;
  const from = input.NextToken === undefined ? (input.StartingBlockIndex ?? 0) : tokens.readPage(list, input.NextToken);
  const most = pageSize(input.MaxResults);
  const expiry = tokens.expiry();
  const { blocks, next } = await pageOf(call, changedBlocks(manifests.empty, manifest, from), most, ({ block }) => ({
    BlockIndex: block,
    BlockToken: tokens.block(id, block, expiry),
  }));
  return {
    Blocks: blocks,
    NextToken: next === undefined ? undefined : tokens.page(list, next),
    ExpiryTime: expiry,
    VolumeSize: snapshot.size_gib,
    BlockSize: BLOCK_BYTES,
  };
};

/** The blocks in which two snapshots of one lineage differ. */
export const listChangedBlocks: EbsOperation<ListChangedBlocksRequest, ListChangedBlocksResponse> = async (
  input,
  call,
  { tokens, manifests },
) => {
  const secondId = readSnapshotId(input.SecondSnapshotId);
  const firstId = input.FirstSnapshotId === undefined ? undefined : readSnapshotId(input.FirstSnapshotId);
  const named = firstId === undefined ? [secondId] : [firstId, secondId];
  await call.permit(...named.map((id) => ({ type: 'snapshot' as const, id })));
  const second = await findCompleted(call, secondId);
  const first = firstId === undefined ? undefined : await findCompleted(call, firstId);
  if (first !== undefined && !(await isRelated(call, first, second))) {
    const message = `The snapshots '${firstId}' and '${secondId}' are not of one lineage.`;
    throw ebsErrors.invalid(message, 'UNRELATED_SNAPSHOTS');
  }
  const list = `${firstId ?? ''} ${secondId}`;
  const from = input.NextToken === undefined ? (input.StartingBlockIndex ?? 0) : tokens.readPage(list, input.NextToken);
  const most = pageSize(input.MaxResults);
  const expiry = tokens.expiry();
  const before = first === undefined ? manifests.empty : await manifests.of(first);
  const changed = changedBlocks(before, await manifests.of(second), from);
  const { blocks, next } = await pageOf(call, changed, most, (change) => ({
    BlockIndex: change.block,
    FirstBlockToken:
      change.first === undefined || firstId === undefined ? undefined : tokens.block(firstId, change.block, expiry),
    SecondBlockToken: change.second === undefined ? undefined : tokens.block(secondId, change.block, expiry),
  }));
  return {
    ChangedBlocks: blocks,
    NextToken: next === undefined ? undefined : tokens.page(list, next),
    ExpiryTime: expiry,
    VolumeSize: second.size_gib,
    BlockSize: BLOCK_BYTES,
  };
};

/** Writes so many blocks as the answer has them. @returns them, and the block with which the next page begins */
async function pageOf<Written>(
  call: Call,
  changes: AsyncIterable<ChangedBlock>,
  most: number,
  write: (change: ChangedBlock) => Written,
): Promise<{ blocks: Written[]; next: number | undefined }> {
  const blocks: Written[] = [];
  for await (const change of changes) {
    if (blocks.length === most) return { blocks, next: change.block };
    blocks.push(write(change));
    if (blocks.length % BLOCKS_IN_ONE_GO === 0) await call.yield();
  }
  return { blocks, next: undefined };
}

function pageSize(asked: number | undefined): number {
  if (asked === undefined) return PAGE.most;
  if (asked < PAGE.least || asked > PAGE.most) {
    const message = `Value (${asked}) of MaxResults must be from ${PAGE.least} to ${PAGE.most}.`;
    throw ebsErrors.invalid(message, 'INVALID_PARAMETER_VALUE');
  }
  return asked;
}

/** Of one volume, or one written on top of the other. */
async function isRelated(call: Call, first: SnapshotRow, second: SnapshotRow): Promise<boolean> {
  if (first.volume_id === second.volume_id && first.volume_id !== NO_VOLUME) return true;
  return (await descends(call, second, first)) || (await descends(call, first, second));
}

async function descends(call: Call, from: SnapshotRow, ancestor: SnapshotRow): Promise<boolean> {
  let parent = from.parent_snapshot_id;
  while (parent !== null && parent !== ancestor.snapshot_id) {
    const row = await call.services.catalog
      .selectFrom('snapshots')
      .select('parent_snapshot_id')
      .where('snapshot_id', '=', parent)
      .executeTakeFirst();
    parent = row?.parent_snapshot_id ?? null;
  }
  return parent !== null;
}
