import type { GetSnapshotBlockRequest } from '@aws-sdk/client-ebs';
import { SnapshotSource } from '../../snapshots/snapshot-source.ts';
import { asBlock, BLOCK_BYTES } from '../../types/units.ts';
import { ebsErrors } from './ebs-errors.ts';
import { apiPatience, type EbsOperation, findCompleted, readSnapshotId } from './ebs-operation.ts';

type Block = { DataLength: number; BlockData: Buffer; Checksum: string; ChecksumAlgorithm: 'SHA256' };

export const getSnapshotBlock: EbsOperation<GetSnapshotBlockRequest, Block> = async (input, call, tokens) => {
  const id = readSnapshotId(input.SnapshotId);
  const index = input.BlockIndex ?? -1;
  call.permit();
  const snapshot = await findCompleted(call, id);
  tokens.checkBlock(input.BlockToken ?? '', id, index);
  const source = new SnapshotSource(call.services.store, snapshot.root ?? undefined, apiPatience());
  const location = await source.manifest.locate(asBlock(index));
  const block = await source.read(asBlock(index));
  if (location === undefined || block === undefined) {
    throw ebsErrors.invalid(`Block ${index} of ${id} holds no data.`, 'INVALID_BLOCK');
  }
  return {
    DataLength: BLOCK_BYTES,
    BlockData: block,
    Checksum: Buffer.from(location.sha256, 'hex').toString('base64'),
    ChecksumAlgorithm: 'SHA256',
  };
};
