import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { EBSClient, GetSnapshotBlockCommand, ListChangedBlocksCommand } from '@aws-sdk/client-ebs';
import {
  AttachVolumeCommand,
  CreateSnapshotCommand,
  CreateVolumeCommand,
  DeleteSnapshotCommand,
  EnableEbsEncryptionByDefaultCommand,
} from '@aws-sdk/client-ec2';
import { BLOCK_BYTES, MIB, PAGE_BYTES } from '../../src/types/units.ts';
import { ended, launchInstance } from '../support/instances.ts';
import { readCredentials, startTestServer } from '../support/server.ts';
import { storeBytes } from '../support/store-bytes.ts';

const SIZE = 16 * MIB;

for (const encrypted of [false, true]) {
  test(`small writes make small snapshots, and all of them come back${encrypted ? '; encrypted' : ''}`, async (t) => {
    const server = await startTestServer(t);
    if (encrypted) await server.ec2.send(new EnableEbsEncryptionByDefaultCommand({}));
    const ebs = new EBSClient({
      region: 'us-east-1',
      endpoint: server.apiUrl,
      credentials: readCredentials(server.dataDir),
    });
    t.after(() => ebs.destroy());
    const { instanceId, volumes } = await launchInstance(server.ec2, [1]);
    const client = await server.connect(volumes[0]);
    const model = Buffer.alloc(SIZE);
    const write = async (offset: number, bytes: Buffer): Promise<void> => {
      bytes.copy(model, offset);
      await client.write(offset, bytes);
    };
    const taken: { id: string; image: Buffer; added: number }[] = [];
    const snapshot = async (): Promise<void> => {
      const before = storeBytes(`${server.dataDir}/objects`);
      const made = await server.ec2.send(new CreateSnapshotCommand({ VolumeId: volumes[0] }));
      const [done] = await ended(server.ec2, [made]);
      assert.equal(done.State, 'completed');
      const added = storeBytes(`${server.dataDir}/objects`) - before;
      taken.push({ id: done.SnapshotId ?? '', image: Buffer.from(model), added });
    };
    await write(0, randomBytes(SIZE));
    await snapshot();
    // A page in the middle of a block, bytes that begin and end within pages, and two blocks at once.
    await write(3 * BLOCK_BYTES + 17 * PAGE_BYTES, randomBytes(PAGE_BYTES));
    await write(5 * BLOCK_BYTES + 1000, randomBytes(10_000));
    await write(9 * BLOCK_BYTES - 3000, randomBytes(6000));
    await snapshot();
    await write(3 * BLOCK_BYTES + 18 * PAGE_BYTES, randomBytes(PAGE_BYTES));
    await write(3 * BLOCK_BYTES + 17 * PAGE_BYTES + 5, Buffer.from('written over'));
    await snapshot();
    await snapshot();
    assert.ok(taken[1].added < 100_000, `${taken[1].added} bytes for seven pages`);
    assert.ok(taken[2].added < 40_000, `${taken[2].added} bytes for two pages`);

    const [first, second] = taken;
    const asked = { FirstSnapshotId: first.id, SecondSnapshotId: second.id };
    const { ChangedBlocks = [] } = await ebs.send(new ListChangedBlocksCommand(asked));
    assert.deepEqual(
      ChangedBlocks.map(({ BlockIndex }) => BlockIndex),
      [3, 5, 8, 9],
    );
    for (const { BlockIndex = 0, SecondBlockToken } of ChangedBlocks) {
      const block = { SnapshotId: second.id, BlockIndex, BlockToken: SecondBlockToken };
      const { BlockData, Checksum } = await ebs.send(new GetSnapshotBlockCommand(block));
      const bytes = Buffer.from((await BlockData?.transformToByteArray()) ?? []);
      assert.ok(bytes.equals(second.image.subarray(BlockIndex * BLOCK_BYTES, (BlockIndex + 1) * BLOCK_BYTES)));
      assert.equal(Checksum, createHash('sha256').update(bytes).digest('base64'));
    }

    // What patches stand on stays when the snapshot that stored it goes.
    await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: first.id }));
    await server.admin.ask('collect', { remove: true });
    for (const [index, { id, image }] of taken.slice(1).entries()) {
      const restored = { AvailabilityZone: 'us-east-1a', SnapshotId: id };
      const { VolumeId = '' } = await server.ec2.send(new CreateVolumeCommand(restored));
      const Device = `/dev/sd${'mno'[index]}`;
      await server.ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId: instanceId, Device }));
      const reader = await server.connect(VolumeId);
      assert.ok((await reader.read(0, SIZE)).equals(image), `snapshot ${index + 1} is not what the volume was`);
      await reader.close();
    }
    await client.close();
  });
}
