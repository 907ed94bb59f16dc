import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  CompleteSnapshotCommand,
  EBSClient,
  GetSnapshotBlockCommand,
  ListChangedBlocksCommand,
  ListSnapshotBlocksCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
} from '@aws-sdk/client-ebs';
import {
  AttachVolumeCommand,
  CreateSnapshotCommand,
  CreateVolumeCommand,
  DescribeSnapshotsCommand,
} from '@aws-sdk/client-ec2';
import type { NewUser } from '../../src/admin/users.ts';
import { FileCleanup } from '../support/cleanup.ts';
import { ended, launchInstance, type TestInstance } from '../support/instances.ts';
import { readCredentials, startTestServer, type TestServer } from '../support/server.ts';

const BLOCK = 524_288;

let server: TestServer;
let ebs: EBSClient;
let stranger: EBSClient;
let instance: TestInstance;
const file = new FileCleanup();
before(async () => {
  server = await startTestServer(file);
  const settings = { region: 'us-east-1', endpoint: server.apiUrl, maxAttempts: 1 };
  ebs = new EBSClient({ ...settings, credentials: readCredentials(server.dataDir) });
  const user = await server.admin.ask<NewUser>('create-user', { accountId: '000000000002', userName: 'bob' });
  stranger = new EBSClient({ ...settings, credentials: user });
  instance = await launchInstance(server.ec2, [2]);
});
after(async () => {
  ebs.destroy();
  stranger.destroy();
  await server.stop();
  file.run();
});

function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('base64');
}

async function snapshotOf(volume: string): Promise<string> {
  const made = await server.ec2.send(new CreateSnapshotCommand({ VolumeId: volume }));
  const [done] = await ended(server.ec2, [made]);
  assert.equal(done.State, 'completed');
  return done.SnapshotId ?? '';
}

async function getBlock(SnapshotId: string, BlockIndex: number, BlockToken: string | undefined): Promise<Buffer> {
  const answer = await ebs.send(new GetSnapshotBlockCommand({ SnapshotId, BlockIndex, BlockToken }));
  const bytes = Buffer.from((await answer.BlockData?.transformToByteArray()) ?? []);
  assert.equal(answer.DataLength, BLOCK);
  assert.equal(answer.ChecksumAlgorithm, 'SHA256');
  assert.equal(answer.Checksum, digest(bytes));
  return bytes;
}

async function requestsForObjects(): Promise<number> {
  const text = await (await fetch(`${server.apiUrl}/metrics`)).text();
  return Number(/cleancut_object_store_requests_total\{operation="get"\} (\d+)/.exec(text)?.[1]);
}

function put(SnapshotId: string, BlockIndex: number, bytes: Buffer, more: object = {}): Promise<unknown> {
  return ebs.send(
    new PutSnapshotBlockCommand({
      SnapshotId,
      BlockIndex,
      BlockData: bytes,
      DataLength: bytes.length,
      Checksum: digest(bytes),
      ChecksumAlgorithm: 'SHA256',
      ...more,
    }),
  );
}

test('a snapshot of a volume reads back block by block, and what changed between two is listed', async () => {
  const [volume] = instance.volumes;
  const client = await server.connect(volume);
  const blocks = new Map<number, Buffer>();
  for (const index of [0, 1, 1023, 1024, 4000]) {
    const bytes = randomBytes(BLOCK);
    blocks.set(index, bytes);
    await client.write(index * BLOCK, bytes);
  }
  const first = await snapshotOf(volume);
  const listed = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: first }));
  assert.deepEqual([listed.VolumeSize, listed.BlockSize], [2, BLOCK]);
  assert.ok((listed.ExpiryTime?.getTime() ?? 0) > Date.now() + 6 * 86_400_000);
  assert.deepEqual(
    listed.Blocks?.map((block) => block.BlockIndex),
    [...blocks.keys()],
  );
  const before = await requestsForObjects();
  for (const { BlockIndex = -1, BlockToken } of listed.Blocks ?? []) {
    assert.ok((await getBlock(first, BlockIndex, BlockToken)).equals(blocks.get(BlockIndex) ?? Buffer.alloc(0)));
  }
  // The manifest has been read for the list.
  assert.equal((await requestsForObjects()) - before, blocks.size);
  await client.write(1 * BLOCK, Buffer.alloc(BLOCK));
  await client.write(2 * BLOCK + 5, Buffer.from('changed'));
  await client.write(4000 * BLOCK, Buffer.from('changed'));
  await client.close();
  const second = await snapshotOf(volume);
  const changed = await ebs.send(new ListChangedBlocksCommand({ FirstSnapshotId: first, SecondSnapshotId: second }));
  assert.deepEqual(
    changed.ChangedBlocks?.map((each) => [
      each.BlockIndex,
      each.FirstBlockToken !== undefined,
      each.SecondBlockToken !== undefined,
    ]),
    [
      [1, true, false],
      [2, false, true],
      [4000, true, true],
    ],
  );
  const at4000 = changed.ChangedBlocks?.[2];
  assert.ok((await getBlock(first, 4000, at4000?.FirstBlockToken)).equals(blocks.get(4000) ?? Buffer.alloc(0)));
  assert.equal((await getBlock(second, 4000, at4000?.SecondBlockToken)).toString('latin1', 0, 7), 'changed');
  const all = await ebs.send(new ListChangedBlocksCommand({ SecondSnapshotId: second }));
  assert.deepEqual(
    all.ChangedBlocks?.map((each) => each.BlockIndex),
    [0, 2, 1023, 1024, 4000],
  );
  const from = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: second, StartingBlockIndex: 1024 }));
  assert.deepEqual(
    from.Blocks?.map((each) => each.BlockIndex),
    [1024, 4000],
  );

  const unrelated = await snapshotOf(instance.root);
  await assert.rejects(
    ebs.send(new ListChangedBlocksCommand({ FirstSnapshotId: unrelated, SecondSnapshotId: second })),
    {
      name: 'ValidationException',
      Reason: 'UNRELATED_SNAPSHOTS',
    },
  );
  const token = listed.Blocks?.[0].BlockToken;
  for (const [id, index, forged] of [
    [second, 0, token],
    [first, 1, token],
    [first, 0, 'made-up'],
    [first, 0, ''],
  ] as const) {
    await assert.rejects(getBlock(id, index, forged), { name: 'ValidationException', Reason: 'INVALID_BLOCK_TOKEN' });
  }
  await assert.rejects(stranger.send(new ListSnapshotBlocksCommand({ SnapshotId: first })), {
    name: 'ResourceNotFoundException',
    Reason: 'SNAPSHOT_NOT_FOUND',
  });
});

test('pages yield each block once', async () => {
  const started = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  const SnapshotId = started.SnapshotId ?? '';
  const bytes = Buffer.alloc(BLOCK, 'page after page ');
  for (let index = 0; index < 250; index += 1) await put(SnapshotId, index * 3, bytes);
  await ebs.send(new CompleteSnapshotCommand({ SnapshotId, ChangedBlocksCount: 250 }));
  const seen: number[] = [];
  let NextToken: string | undefined;
  do {
    const page = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId, MaxResults: 100, NextToken }));
    seen.push(...(page.Blocks ?? []).map((block) => block.BlockIndex ?? -1));
    NextToken = page.NextToken;
  } while (NextToken !== undefined);
  assert.deepEqual(
    seen,
    Array.from({ length: 250 }, (_, index) => index * 3),
  );
  await assert.rejects(ebs.send(new ListSnapshotBlocksCommand({ SnapshotId, MaxResults: 10 })), {
    Reason: 'INVALID_PARAMETER_VALUE',
  });
  await assert.rejects(ebs.send(new ListSnapshotBlocksCommand({ SnapshotId, NextToken: 'made-up' })), {
    Reason: 'INVALID_PAGE_TOKEN',
  });
});

test('a snapshot written block by block, on top of a parent, restores to a volume', async () => {
  const started = await ebs.send(
    new StartSnapshotCommand({
      VolumeSize: 1,
      Description: 'from elsewhere',
      Tags: [{ Key: 'k', Value: 'v' }],
      ClientToken: 'one',
    }),
  );
  const parent = started.SnapshotId ?? '';
  assert.deepEqual([started.Status, started.OwnerId, started.BlockSize], ['pending', '000000000001', BLOCK]);
  const again = await ebs.send(
    new StartSnapshotCommand({
      VolumeSize: 1,
      Description: 'from elsewhere',
      Tags: [{ Key: 'k', Value: 'v' }],
      ClientToken: 'one',
    }),
  );
  assert.equal(again.SnapshotId, parent);
  await assert.rejects(ebs.send(new StartSnapshotCommand({ VolumeSize: 2, ClientToken: 'one' })), {
    name: 'ConflictException',
  });
  const [a, b, c] = [randomBytes(BLOCK), randomBytes(BLOCK), randomBytes(BLOCK)];
  await put(parent, 7, a);
  await put(parent, 2000, b);
  await put(parent, 7, a);
  const LINEAR = (...all: Buffer[]) => ({
    Checksum: createHash('sha256')
      .update(Buffer.concat(all.map((each) => createHash('sha256').update(each).digest())))
      .digest('base64'),
    ChecksumAlgorithm: 'SHA256' as const,
    ChecksumAggregationMethod: 'LINEAR' as const,
  });
  const complete = (SnapshotId: string, ChangedBlocksCount: number, more = {}) =>
    ebs.send(new CompleteSnapshotCommand({ SnapshotId, ChangedBlocksCount, ...more }));
  await assert.rejects(complete(parent, 3), { name: 'ValidationException', message: /2 blocks were written/ });
  await assert.rejects(complete(parent, 2, LINEAR(b, a)), {
    name: 'ValidationException',
    message: /aggregate checksum/,
  });
  assert.equal((await complete(parent, 2, LINEAR(a, b))).Status, 'completed');
  assert.equal((await complete(parent, 2, LINEAR(a, b))).Status, 'completed');

  const child =
    (await ebs.send(new StartSnapshotCommand({ VolumeSize: 2, ParentSnapshotId: parent }))).SnapshotId ?? '';
  await put(child, 7, Buffer.alloc(BLOCK));
  await put(child, 4095, c);
  await complete(child, 2);
  const changed = await ebs.send(new ListChangedBlocksCommand({ FirstSnapshotId: parent, SecondSnapshotId: child }));
  assert.deepEqual(
    changed.ChangedBlocks?.map((each) => each.BlockIndex),
    [7, 4095],
  );
  const [shown] = (await server.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [child] }))).Snapshots ?? [];
  assert.deepEqual([shown.State, shown.VolumeSize, shown.FullSnapshotSizeInBytes], ['completed', 2, 2 * BLOCK]);
  const made = await server.ec2.send(new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', SnapshotId: child }));
  await server.ec2.send(
    new AttachVolumeCommand({ VolumeId: made.VolumeId, InstanceId: instance.instanceId, Device: '/dev/sdk' }),
  );
  const reader = await server.connect(made.VolumeId ?? '');
  assert.ok((await reader.read(7 * BLOCK, BLOCK)).equals(Buffer.alloc(BLOCK)));
  assert.ok((await reader.read(2000 * BLOCK, BLOCK)).equals(b));
  assert.ok((await reader.read(4095 * BLOCK, BLOCK)).equals(c));
  await reader.close();
});

test('bad blocks and bad requests are refused with their reasons', async () => {
  const SnapshotId = (await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }))).SnapshotId ?? '';
  const bytes = randomBytes(BLOCK);
  await assert.rejects(put(SnapshotId, 2048, bytes), { name: 'ValidationException', Reason: 'INVALID_BLOCK' });
  await assert.rejects(put(SnapshotId, 0, bytes, { Checksum: digest(Buffer.alloc(1)) }), {
    name: 'ValidationException',
    Reason: 'INVALID_BLOCK',
  });
  await assert.rejects(put(SnapshotId, 0, bytes.subarray(1)), { Reason: 'INVALID_BLOCK' });
  await assert.rejects(put(SnapshotId, 0, bytes, { ChecksumAlgorithm: 'MD5' }), { Reason: 'INVALID_PARAMETER_VALUE' });
  await assert.rejects(put('snap-0123456789abcdef0', 0, bytes), {
    name: 'ResourceNotFoundException',
    Reason: 'SNAPSHOT_NOT_FOUND',
  });
  await assert.rejects(put('nonsense', 0, bytes), { Reason: 'INVALID_SNAPSHOT_ID' });
  const start = (input: object) => ebs.send(new StartSnapshotCommand({ VolumeSize: 1, ...input }));
  await assert.rejects(start({ VolumeSize: 0 }), { Reason: 'INVALID_VOLUME_SIZE' });
  await assert.rejects(start({ Timeout: 5 }), { Reason: 'INVALID_PARAMETER_VALUE' });
  await assert.rejects(start({ ParentSnapshotId: 'snap-0123456789abcdef0' }), {
    name: 'ResourceNotFoundException',
    Reason: 'DEPENDENCY_RESOURCE_NOT_FOUND',
  });
  await assert.rejects(start({ Tags: [{ Key: 'aws:x', Value: '' }] }), { name: 'ValidationException' });
  await assert.rejects(start({ KmsKeyArn: 'alias/mine' }), { name: 'ValidationException' });
  const completed = await snapshotOf(instance.root);
  await assert.rejects(put(completed, 0, bytes), { Reason: 'INVALID_SNAPSHOT_ID' });
});

test('a block that is acknowledged while its snapshot is being completed is in it; or it is refused', async () => {
  const [first, second] = [randomBytes(BLOCK), randomBytes(BLOCK)];
  const outcomes = new Set<string>();
  for (let round = 0; round < 40; round += 1) {
    const { SnapshotId = '' } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
    await put(SnapshotId, 0, first);
    const acknowledged = put(SnapshotId, 0, second).then(
      () => true,
      (error: { Reason?: string }) => {
        assert.equal(error.Reason, 'INVALID_SNAPSHOT_ID');
        return false;
      },
    );
    // From at once to long after the block.
    await sleep(round);
    await ebs.send(new CompleteSnapshotCommand({ SnapshotId, ChangedBlocksCount: 1 }));
    const expected = (await acknowledged) ? second : first;
    const { Blocks = [] } = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId }));
    const found = await getBlock(SnapshotId, 0, Blocks[0].BlockToken);
    assert.ok(
      found.equals(expected),
      `round ${round}: ${(await acknowledged) ? 'an acknowledged' : 'a refused'} block`,
    );
    outcomes.add((await acknowledged) ? 'acknowledged' : 'refused');
  }
  assert.equal(outcomes.size, 2, `all were ${[...outcomes]}`);
});

test('a snapshot that is being written survives a restart of the server', async (t) => {
  const first = await startTestServer(t);
  const credentials = readCredentials(first.dataDir);
  const client = (url: string) => new EBSClient({ region: 'us-east-1', endpoint: url, credentials, maxAttempts: 1 });
  const before = client(first.apiUrl);
  const SnapshotId = (await before.send(new StartSnapshotCommand({ VolumeSize: 1 }))).SnapshotId ?? '';
  const bytes = randomBytes(BLOCK);
  const block = {
    SnapshotId,
    BlockData: bytes,
    DataLength: BLOCK,
    Checksum: digest(bytes),
    ChecksumAlgorithm: 'SHA256' as const,
  };
  await before.send(new PutSnapshotBlockCommand({ ...block, BlockIndex: 1 }));
  before.destroy();
  await first.kill();
  const second = await startTestServer(t, { dataDir: first.dataDir });
  const later = client(second.apiUrl);
  await later.send(new PutSnapshotBlockCommand({ ...block, BlockIndex: 2 }));
  await later.send(new CompleteSnapshotCommand({ SnapshotId, ChangedBlocksCount: 2 }));
  later.destroy();
  const reader = await second.connect(SnapshotId);
  assert.ok((await reader.read(BLOCK, 2 * BLOCK)).equals(Buffer.concat([bytes, bytes])));
  await reader.close();
});
