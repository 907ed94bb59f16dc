import type { GetSnapshotBlockRequest } from '@aws-sdk/client-ebs';
import { sha256 } from '../../snapshots/block-encoding.ts';
import { SnapshotSource } from '../../snapshots/snapshot-source.ts';
import { asBlock, BLOCK_BYTES } from '../../types/units.ts';
import { ebsErrors } from './ebs-errors.ts';
import { apiPatience, type EbsOperation, findCompleted, readSnapshotId } from './ebs-operation.ts';

type Block = { DataLength: number; BlockData: Buffer; Checksum: string; ChecksumAlgorithm: 'SHA256' };

export const getSnapshotBlock: EbsOperation<GetSnapshotBlockRequest, Block> = async (input, call, means) => {
  const id = readSnapshotId(input.SnapshotId);
  const index = input.BlockIndex ?? -1;
  await call.permit({ type: 'snapshot', id });
  const snapshot = await findCompleted(call, id);
  means.tokens.checkBlock(input.BlockToken ?? '', id, index);
  const manifest = await means.manifests.of(snapshot);
  const source = new SnapshotSource(call.services.store, manifest, apiPatience());
  const block = await source.read(asBlock(index));
  if (block === undefined) {
    throw ebsErrors.invalid(`Block ${index} of ${id} holds no data.`, 'INVALID_BLOCK');
  }
  return {
    DataLength: BLOCK_BYTES,
    BlockData: block,
    Checksum: Buffer.from(sha256(block), 'hex').toString('base64'),
    ChecksumAlgorithm: 'SHA256',
  };
};
