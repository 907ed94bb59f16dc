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
  const location = await manifest.locate(asBlock(index));
  const source = new SnapshotSource(means.reader, manifest, apiPatience());
  const block = await means.blocksAtOnce.run(() => source.read(asBlock(index)));
  if (location === undefined || block === undefined) {
    throw ebsErrors.invalid(`Block ${index} of ${id} holds no data.`, 'INVALID_BLOCK');
  }
  // By this it was checked when it was read, where it lies in the store as it is.
  const isPlain = manifest.key === undefined && location.patch === undefined;
  const digest = isPlain ? location.whole.sha256 : sha256(block);
  // The answer takes this thread another millisecond.
  await call.services.dataPlane.afterHold();
  return {
    DataLength: BLOCK_BYTES,
    BlockData: block,
    Checksum: Buffer.from(digest, 'hex').toString('base64'),
    ChecksumAlgorithm: 'SHA256',
  };
};
