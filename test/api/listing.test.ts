import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import {
  CreateSnapshotCommand,
  CreateTagsCommand,
  DeleteSnapshotCommand,
  DescribeSnapshotsCommand,
  type Filter,
  paginateDescribeSnapshots,
  type Snapshot,
} from '@aws-sdk/client-ec2';
import fc from 'fast-check';
import { FileCleanup } from '../support/cleanup.ts';
import { ended, launchInstance } from '../support/instances.ts';
import { startTestServer, type TestServer } from '../support/server.ts';

let server: TestServer;
let all: Snapshot[];
const file = new FileCleanup();
before(async () => {
  server = await startTestServer(file);
  const instance = await launchInstance(server.ec2, [1, 2]);
  for (let index = 0; index < 24; index += 1) {
    const made = await server.ec2.send(
      new CreateSnapshotCommand({
        VolumeId: instance.volumes[index % 2],
        Description: ['', 'daily', 'daily 2', 'week*ly'][index % 4],
      }),
    );
    await ended(server.ec2, [made]);
    const Tags = [
      { Key: 'stage', Value: ['test', 'prod', 'Prod', ''][index % 4] },
      { Key: index % 3 === 0 ? 'a?b' : 'team', Value: `t${index % 5}` },
    ];
    if (index % 6 !== 0) await server.ec2.send(new CreateTagsCommand({ Resources: [made.SnapshotId ?? ''], Tags }));
  }
  all = (await server.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }))).Snapshots ?? [];
});
after(async () => {
  await server.stop();
  file.run();
});

/** A filter as plainly as it can be said. */
function naive(snapshot: Snapshot, { Name = '', Values = [] }: Filter): boolean {
  const tags = snapshot.Tags ?? [];
  const values: Record<string, (string | undefined)[]> = {
    description: [snapshot.Description],
    'volume-id': [snapshot.VolumeId],
    'volume-size': [String(snapshot.VolumeSize)],
    status: [snapshot.State],
    progress: [snapshot.Progress],
    'snapshot-id': [snapshot.SnapshotId],
    'tag-key': tags.map((tag) => tag.Key),
  };
  const found = Name.startsWith('tag:')
    ? tags.filter((tag) => tag.Key === Name.slice(4)).map((tag) => tag.Value)
    : values[Name];
  return found.some((value) => value !== undefined && Values.some((pattern) => matches(pattern, value)));
}

function matches(pattern: string, value: string): boolean {
  const source = pattern.replace(/\\(.)|[*?]|./gs, (step, escaped?: string) =>
    step === '*' ? '.*' : step === '?' ? '.' : RegExp.escape(escaped ?? step),
  );
  return new RegExp(`^${source}$`, 's').test(value);
}

test('any combination of filters gives what a naive filter over everything gives', async () => {
  const volumes = [...new Set(all.map((snapshot) => snapshot.VolumeId ?? ''))];
  const filter = fc.oneof(
    fc.record({
      Name: fc.constant('description'),
      Values: fc.subarray(['', 'daily', 'daily*', '*l?', 'week\\*ly', 'x'], { minLength: 1 }),
    }),
    fc.record({
      Name: fc.constant('volume-id'),
      Values: fc.subarray([...volumes, 'vol-*', 'vol-00000000'], { minLength: 1 }),
    }),
    fc.record({ Name: fc.constant('volume-size'), Values: fc.subarray(['1', '2', '3'], { minLength: 1 }) }),
    fc.record({
      Name: fc.constant('status'),
      Values: fc.subarray(['completed', 'pending', 'comp*'], { minLength: 1 }),
    }),
    fc.record({
      Name: fc.constant('tag:stage'),
      Values: fc.subarray(['test', 'prod', 'p*', '', 'PROD'], { minLength: 1 }),
    }),
    fc.record({ Name: fc.constant('tag:a?b'), Values: fc.subarray(['t0', 't?', 't3'], { minLength: 1 }) }),
    fc.record({ Name: fc.constant('tag-key'), Values: fc.subarray(['team', 'a\\?b', 'sta*'], { minLength: 1 }) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(filter, { minLength: 1, maxLength: 3 }), async (Filters) => {
      const { Snapshots = [] } = await server.ec2.send(new DescribeSnapshotsCommand({ Filters }));
      const expected = all.filter((snapshot) => Filters.every((each) => naive(snapshot, each)));
      assert.deepEqual(
        Snapshots.map((snapshot) => snapshot.SnapshotId),
        expected.map((snapshot) => snapshot.SnapshotId),
      );
    }),
    { numRuns: 150 },
  );
});

test('pages yield each snapshot once, while others come and go', async () => {
  const seen: string[] = [];
  const going = all.slice(3, 20).filter((_, index) => index % 4 === 0);
  let page = 0;
  for await (const { Snapshots = [] } of paginateDescribeSnapshots(
    { client: server.ec2, pageSize: 5 },
    { OwnerIds: ['self'] },
  )) {
    seen.push(...Snapshots.map((snapshot) => snapshot.SnapshotId ?? ''));
    // Between two pages one goes that was shown, or is still to come.
    const gone = going[page];
    page += 1;
    if (gone !== undefined) await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: gone.SnapshotId }));
  }
  assert.equal(new Set(seen).size, seen.length, 'none twice');
  const stayed = all
    .filter((snapshot) => !going.slice(0, page).includes(snapshot))
    .map((snapshot) => snapshot.SnapshotId ?? '');
  for (const id of stayed) assert.ok(seen.includes(id), 'none left out that was there all the time');
});
