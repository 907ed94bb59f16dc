/**
 * A client of the EBS direct APIs in a process of its own: reads or writes blocks of 512 KiB for so many seconds, so many
 * at once. Prints JSON.
 *
 *   node block-client.ts API_URL DATA_DIR get|put SNAPSHOT_ID AT_ONCE SECONDS
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  EBSClient,
  GetSnapshotBlockCommand,
  ListSnapshotBlocksCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
} from '@aws-sdk/client-ebs';
import { readCredentials } from '../../src/auth/credentials-file.ts';

const BLOCK_BYTES = 512 * 1024;
const [apiUrl, dataDir, what, SnapshotId, atOnce, seconds] = process.argv.slice(2);
const ebs = new EBSClient({
  region: 'us-east-1',
  endpoint: apiUrl,
  credentials: readCredentials(`${dataDir}/credentials`),
  requestHandler: { httpAgent: { keepAlive: true, maxSockets: Number(atOnce) } },
});

/** @returns what reads one block after the other, round and round */
async function reader(): Promise<(turn: number) => Promise<void>> {
  const { Blocks = [] } = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId }));
  return async (turn) => {
    const { BlockIndex, BlockToken } = Blocks[turn % Blocks.length];
    const answer = await ebs.send(new GetSnapshotBlockCommand({ SnapshotId, BlockIndex, BlockToken }));
    const bytes = await answer.BlockData?.transformToByteArray();
    if (bytes?.length !== BLOCK_BYTES) throw new Error(`block ${BlockIndex} came with ${bytes?.length} bytes`);
  };
}

/** @returns what writes random blocks to a new snapshot */
async function writer(): Promise<(turn: number) => Promise<void>> {
  const made = await ebs.send(new StartSnapshotCommand({ VolumeSize: 64 }));
  const random = randomBytes(BLOCK_BYTES);
  return async (BlockIndex) => {
    const BlockData = Buffer.from(random);
    BlockData.writeUInt32LE(BlockIndex);
    const Checksum = createHash('sha256').update(BlockData).digest('base64');
    const checked = { DataLength: BLOCK_BYTES, Checksum, ChecksumAlgorithm: 'SHA256' as const };
    await ebs.send(new PutSnapshotBlockCommand({ SnapshotId: made.SnapshotId, BlockIndex, BlockData, ...checked }));
  };
}

const one = what === 'get' ? await reader() : await writer();
const milliseconds: number[] = [];
const begun = performance.now();
let turn = 0;
await Promise.all(
  Array.from({ length: Number(atOnce) }, async () => {
    for (let now = begun; now < begun + Number(seconds) * 1000; ) {
      turn += 1;
      await one(turn - 1);
      const before = now;
      now = performance.now();
      milliseconds.push(now - before);
    }
  }),
);
const took = (performance.now() - begun) / 1000;
process.stdout.write(JSON.stringify({ blocksPerSecond: milliseconds.length / took, milliseconds }));
