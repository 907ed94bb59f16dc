import { createHash } from 'node:crypto';
import type {
  CompleteSnapshotRequest,
  CompleteSnapshotResponse,
  PutSnapshotBlockRequest,
  PutSnapshotBlockResponse,
  StartSnapshotRequest,
  StartSnapshotResponse,
} from '@aws-sdk/client-ebs';
import type { DirectBlockRow, DirectUploadRow, SnapshotRow } from '../../catalog/schema.ts';
import { assembleManifest } from '../../snapshots/assemble.ts';
import type { PackId, RecordLocation } from '../../snapshots/block-encoding.ts';
import { type Encoding, sha256 } from '../../snapshots/block-encoding.ts';
import type { SnapshotId } from '../../types/ids.ts';
import { BLOCK_BYTES, blockCount, GIB } from '../../types/units.ts';
import { making } from '../authorization.ts';
import { planEncryption, protect, recordDataKey } from '../encryption.ts';
import type { Call } from '../operation.ts';
import { insertSet, NO_VOLUME } from '../snapshots/new-set.ts';
import { checkDescription } from '../snapshots/snapshot-rules.ts';
import { readTags } from '../tags/tag-rules.ts';
import { DEFAULT_VOLUME_TYPE } from '../volumes/volume-types.ts';
import { ebsErrors } from './ebs-errors.ts';
import { apiPatience, type EbsOperation, findCompleted, findSnapshot, readSnapshotId } from './ebs-operation.ts';

const TIMEOUT_MINUTES = { least: 10, most: 4320, default: 60 };
const LARGEST_GIB = 65_536;
/** They take this thread some milliseconds. */
const ROWS_AT_ONCE = 1024;

/** A pending snapshot, to be written block by block. */
export const startSnapshot: EbsOperation<StartSnapshotRequest, StartSnapshotResponse> = async (input, call) => {
  const sizeGiB = input.VolumeSize ?? 0;
  if (sizeGiB < 1 || sizeGiB > LARGEST_GIB) {
    throw ebsErrors.invalid(
      `Value (${sizeGiB}) of VolumeSize must be from 1 to ${LARGEST_GIB} GiB.`,
      'INVALID_VOLUME_SIZE',
    );
  }
  const timeout = input.Timeout ?? TIMEOUT_MINUTES.default;
  if (timeout < TIMEOUT_MINUTES.least || timeout > TIMEOUT_MINUTES.most) {
    const range = `${TIMEOUT_MINUTES.least} to ${TIMEOUT_MINUTES.most} minutes`;
    throw ebsErrors.invalid(`Value (${timeout}) of Timeout must be ${range}.`, 'INVALID_PARAMETER_VALUE');
  }
  if (input.ParentSnapshotId !== undefined && (input.Encrypted !== undefined || input.KmsKeyArn !== undefined)) {
    const message = 'A snapshot on top of a parent is encrypted as that is: Encrypted and KmsKeyArn must not be given.';
    throw ebsErrors.invalid(message, 'INVALID_PARAMETER_VALUE');
  }
  if (input.KmsKeyArn !== undefined && input.Encrypted !== true) {
    throw ebsErrors.invalid('KmsKeyArn needs Encrypted=true.', 'INVALID_PARAMETER_VALUE');
  }
  const description = checkDescription(input.Description);
  const tags = readTags(input.Tags);
  const parentId = input.ParentSnapshotId === undefined ? undefined : readSnapshotId(input.ParentSnapshotId);
  const parents = parentId === undefined ? [] : [{ type: 'snapshot' as const, id: parentId }];
  await call.permit(...parents, async () =>
    making(call, 'snapshot', tags, { 'ec2:Owner': call.caller.accountId, 'ec2:VolumeSize': sizeGiB }),
  );
  const { catalog, lifecycle, now } = call.services;
  const request = createHash('sha256').update(JSON.stringify(input)).digest('hex');
  // With the parent: it must not be deleted, and collected, before the catalog says who is built on it.
  const locks = [`direct ${call.caller.accountId}`, ...(parentId === undefined ? [] : [parentId])];
  const snapshotId = await lifecycle.locks.hold(locks, async () => {
    const earlier = await findByToken(call, input.ClientToken);
    if (earlier !== undefined) {
      if (earlier.client_token_request !== request) {
        throw ebsErrors.conflict(`The client token '${input.ClientToken}' came with another request before.`);
      }
      return earlier.snapshot_id;
    }
    const parent = parentId === undefined ? undefined : await findParent(call, parentId, sizeGiB);
    const encryption =
      parent === undefined
        ? await protect(
            call,
            await planEncryption(call, { encrypted: input.Encrypted, kmsKeyId: input.KmsKeyArn }, undefined),
          )
        : { data_key_id: parent.data_key_id, kms_key_arn: parent.kms_key_arn, made: undefined };
    return catalog.transaction().execute(async (transaction) => {
      await recordDataKey(transaction, encryption);
      const { snapshotIds } = await insertSet(transaction, call, {
        instanceId: null,
        description,
        startedAt: now(),
        holdMilliseconds: 0,
        snapshots: [
          {
            volumeId: NO_VOLUME,
            volumeType: DEFAULT_VOLUME_TYPE,
            sizeGiB,
            device: undefined,
            tags,
            parentId,
            encryption,
            bytes: undefined,
          },
        ],
      });
      await transaction
        .insertInto('direct_uploads')
        .values({
          snapshot_id: snapshotIds[0],
          parent_snapshot_id: parentId ?? null,
          parent_root: parent?.root ?? null,
          timeout_minutes: timeout,
          active_at: now().toISOString(),
          client_token: input.ClientToken ?? null,
          client_token_request: request,
        })
        .execute();
      return snapshotIds[0];
    });
  });
  const snapshot = await findSnapshot(call, snapshotId);
  return {
    SnapshotId: snapshotId,
    OwnerId: snapshot.account_id,
    Status: snapshot.state,
    StartTime: new Date(snapshot.started_at),
    VolumeSize: snapshot.size_gib,
    BlockSize: BLOCK_BYTES,
    Description: snapshot.description,
    ParentSnapshotId: parentId,
    KmsKeyArn: snapshot.kms_key_arn ?? undefined,
    SseType: snapshot.data_key_id === null ? 'none' : 'sse-kms',
    Tags: [...tags].map(([Key, Value]) => ({ Key, Value })),
  };
};

/** Stores one block; it is durable, and in the object store, when it is answered. */
export const putSnapshotBlock: EbsOperation<PutSnapshotBlockRequest, PutSnapshotBlockResponse> = async (
  input,
  call,
  means,
) => {
  const id = readSnapshotId(input.SnapshotId);
  const bytes = input.BlockData as unknown as Buffer;
  const index = input.BlockIndex ?? -1;
  if (bytes.length !== BLOCK_BYTES || input.DataLength !== BLOCK_BYTES) {
    const message = `A block has ${BLOCK_BYTES} bytes; x-amz-Data-Length says ${input.DataLength}, the body has ${bytes.length}.`;
    throw ebsErrors.invalid(message, 'INVALID_BLOCK');
  }
  if (input.ChecksumAlgorithm !== 'SHA256') {
    throw ebsErrors.invalid(
      `Value (${input.ChecksumAlgorithm}) of ChecksumAlgorithm must be SHA256.`,
      'INVALID_PARAMETER_VALUE',
    );
  }
  const digest = sha256(bytes);
  const checksum = Buffer.from(digest, 'hex').toString('base64');
  if (input.Checksum !== checksum) {
    throw ebsErrors.invalid(`The block's SHA-256 is ${checksum}, not ${input.Checksum}.`, 'INVALID_BLOCK');
  }
  if (input.Progress !== undefined && (input.Progress < 0 || input.Progress > 100)) {
    throw ebsErrors.invalid(`Value (${input.Progress}) of Progress must be from 0 to 100.`, 'INVALID_PARAMETER_VALUE');
  }
  await call.permit({ type: 'snapshot', id });
  const { snapshot } = await findUpload(call, id);
  if (index < 0 || index >= blockCount(snapshot.size_gib * GIB)) {
    throw ebsErrors.invalid(`Block ${index} is outside of a snapshot of ${snapshot.size_gib} GiB.`, 'INVALID_BLOCK');
  }
  const { lifecycle, keys } = call.services;
  const key = await keys.open(snapshot.data_key_id);
  await means.blocksAtOnce.run(() =>
    lifecycle.uploads.upload('request', () => means.blockUploads.store(id, index, bytes, digest, key)),
  );
  return { Checksum: checksum, ChecksumAlgorithm: 'SHA256' };
};

/** Seals the snapshot: its manifest is stored, and it can be read and restored like any other. */
export const completeSnapshot: EbsOperation<CompleteSnapshotRequest, CompleteSnapshotResponse> = async (
  input,
  call,
) => {
  const id = readSnapshotId(input.SnapshotId);
  await call.permit({ type: 'snapshot', id });
  const { catalog, lifecycle, store, keys } = call.services;
  return lifecycle.locks.hold([id], async () => {
    const found = await findSnapshot(call, id);
    // Asked again, after an answer that was lost.
    if (found.state === 'completed' && found.account_id === call.caller.accountId) return { Status: 'completed' };
    const { upload } = await findUpload(call, id);
    const key = await keys.open(found.data_key_id);
    const aggregate = createHash('sha256');
    let count = 0;
    for await (const row of blocksOf(call, id)) {
      aggregate.update(Buffer.from(row.sha256, 'hex'));
      count += 1;
    }
    if (count !== input.ChangedBlocksCount) {
      const message = `${count} blocks were written, ChangedBlocksCount says ${input.ChangedBlocksCount}.`;
      throw ebsErrors.invalid(message, 'INVALID_PARAMETER_VALUE');
    }
    checkAggregate(input, aggregate.digest('base64'));
    await lifecycle.uploads.upload('request', async () => {
      const { root, dataBlocks } = await assembleManifest(
        store,
        upload.parent_root ?? undefined,
        apiPatience(),
        key,
        changesOf(call, id),
      );
      await catalog.transaction().execute(async (transaction) => {
        await transaction
          .updateTable('snapshots')
          .set({ root, data_blocks: dataBlocks })
          .where('snapshot_id', '=', id)
          .execute();
        // With that its blocks are nobody's, and swept (see WrittenBlocks).
        await transaction.deleteFrom('direct_uploads').where('snapshot_id', '=', id).execute();
      });
    });
    await lifecycle.snapshots.completeStored(id);
    return { Status: (await findSnapshot(call, id)).state };
  });
};

function checkAggregate(input: CompleteSnapshotRequest, found: string): void {
  if (input.Checksum === undefined) return;
  if (input.ChecksumAlgorithm !== 'SHA256' || input.ChecksumAggregationMethod !== 'LINEAR') {
    const message = 'A checksum needs ChecksumAlgorithm SHA256 and ChecksumAggregationMethod LINEAR.';
    throw ebsErrors.invalid(message, 'INVALID_PARAMETER_VALUE');
  }
  if (input.Checksum !== found) {
    throw ebsErrors.invalid(
      `The blocks' aggregate checksum is ${found}, not ${input.Checksum}.`,
      'INVALID_PARAMETER_VALUE',
    );
  }
}

async function findByToken(call: Call, token: string | undefined): Promise<DirectUploadRow | undefined> {
  if (token === undefined) return undefined;
  return call.services.catalog
    .selectFrom('direct_uploads')
    .innerJoin('snapshots', 'snapshots.snapshot_id', 'direct_uploads.snapshot_id')
    .selectAll('direct_uploads')
    .where('direct_uploads.client_token', '=', token)
    .where('snapshots.account_id', '=', call.caller.accountId)
    .where('snapshots.region', '=', call.region)
    .executeTakeFirst();
}

async function findParent(call: Call, id: SnapshotId, sizeGiB: number): Promise<SnapshotRow> {
  const parent = await findCompleted(call, id).catch((error: Error & { code?: string }) => {
    throw error.code === 'ResourceNotFoundException' ? ebsErrors.noParent(id) : error;
  });
  if (parent.size_gib > sizeGiB) {
    const message = `The parent snapshot '${id}' has ${parent.size_gib} GiB, more than VolumeSize ${sizeGiB}.`;
    throw ebsErrors.invalid(message, 'INVALID_VOLUME_SIZE');
  }
  return parent;
}

/** A snapshot of the caller's that is being written. @throws ApiError */
async function findUpload(call: Call, id: SnapshotId): Promise<{ snapshot: SnapshotRow; upload: DirectUploadRow }> {
  const snapshot = await findSnapshot(call, id);
  const upload = await call.services.catalog
    .selectFrom('direct_uploads')
    .selectAll()
    .where('snapshot_id', '=', id)
    .executeTakeFirst();
  if (snapshot.account_id !== call.caller.accountId) throw ebsErrors.noSnapshot(id);
  if (upload === undefined || snapshot.state !== 'pending') {
    throw ebsErrors.notBeingWritten(id);
  }
  return { snapshot, upload };
}

async function* blocksOf(call: Call, id: SnapshotId): AsyncGenerator<DirectBlockRow> {
  for (let after = -1; ; ) {
    const rows = await call.services.catalog
      .selectFrom('direct_blocks')
      .selectAll()
      .where('snapshot_id', '=', id)
      .where('block_index', '>', after)
      .orderBy('block_index')
      .limit(ROWS_AT_ONCE)
      .execute();
    yield* rows;
    const last = rows.at(-1);
    if (last === undefined) return;
    await call.yield();
    after = last.block_index;
  }
}

async function* changesOf(
  call: Call,
  id: SnapshotId,
): AsyncGenerator<{ block: number; location: RecordLocation | undefined }> {
  for await (const row of blocksOf(call, id)) {
    yield {
      block: row.block_index,
      location:
        row.pack === null
          ? undefined
          : {
              pack: row.pack as PackId,
              offset: row.pack_offset,
              length: row.stored_length,
              encoding: row.encoding as Encoding,
              sha256: row.block_hash,
            },
    };
  }
}
