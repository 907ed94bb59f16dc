import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import {
  CreateSnapshotCommand,
  CreateTagsCommand,
  DeleteSnapshotCommand,
  DescribeSnapshotsCommand,
  DescribeTagsCommand,
  type Filter,
  paginateDescribeSnapshots,
  paginateDescribeTags,
  type Snapshot,
  type TagDescription,
} from '@aws-sdk/client-ec2';
import fc from 'fast-check';
import { sql } from 'kysely';
import { STRETCH_ROWS } from '../../src/api/pages.ts';
import { openCatalog } from '../../src/catalog/catalog.ts';
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
        Description: ['', 'daily', 'daily 2', 'week*ly', '50%_\\'][index % 5],
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
    'start-time': [snapshot.StartTime?.toISOString()],
    encrypted: [String(snapshot.Encrypted)],
    'owner-id': [snapshot.OwnerId],
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
      Values: fc.subarray(['', 'daily', 'DAILY*', 'daily*', '*l?', 'week\\*ly', '50%*', '*_\\\\', '5%*', '_*', 'x'], {
        minLength: 1,
      }),
    }),
    fc.record({
      Name: fc.constant('start-time'),
      Values: fc.subarray(['20*', `${all[5].StartTime?.toISOString().slice(0, -2)}*`, '*Z', '19??*'], { minLength: 1 }),
    }),
    fc.record({ Name: fc.constant('encrypted'), Values: fc.subarray(['true', 'false', 'f*'], { minLength: 1 }) }),
    fc.record({
      Name: fc.constant('owner-id'),
      Values: fc.subarray(['000000000001', '000000000002', '*1'], { minLength: 1 }),
    }),
    fc.record({
      Name: fc.constant('snapshot-id'),
      Values: fc.subarray([...all.slice(7, 11).map((each) => each.SnapshotId ?? ''), 'snap-*1'], { minLength: 1 }),
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
    { numRuns: 200 },
  );
});

test('any filters of DescribeTags give what a naive filter over all tags gives, page by page', async () => {
  const tags: TagDescription[] = [];
  for (const { SnapshotId: ResourceId, Tags = [] } of all) {
    for (const { Key, Value } of Tags.toSorted((a, b) => (`${a.Key}` < `${b.Key}` ? -1 : 1))) {
      tags.push({ ResourceId, ResourceType: 'snapshot', Key, Value });
    }
  }
  const values = (tag: TagDescription, name: string): (string | undefined)[] => {
    if (name.startsWith('tag:')) return name === `tag:${tag.Key}` ? [tag.Value] : [];
    return [{ key: tag.Key, value: tag.Value, 'resource-id': tag.ResourceId, 'resource-type': tag.ResourceType }[name]];
  };
  const filter = fc.oneof(
    fc.record({ Name: fc.constant('key'), Values: fc.subarray(['team', 'a\\?b', 'sta*', 'x'], { minLength: 1 }) }),
    fc.record({ Name: fc.constant('value'), Values: fc.subarray(['t0', 't?', 'prod', 'P*', ''], { minLength: 1 }) }),
    fc.record({ Name: fc.constant('tag:team'), Values: fc.subarray(['t1', 't3', '*'], { minLength: 1 }) }),
    fc.record({ Name: fc.constant('resource-type'), Values: fc.subarray(['snapshot', 'vol*'], { minLength: 1 }) }),
    fc.record({
      Name: fc.constant('resource-id'),
      Values: fc.subarray([...all.slice(2, 9).map((each) => each.SnapshotId ?? ''), 'snap-*a'], { minLength: 1 }),
    }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(filter, { maxLength: 3 }), fc.integer({ min: 5, max: 40 }), async (Filters, pageSize) => {
      const found: TagDescription[] = [];
      for await (const page of paginateDescribeTags({ client: server.ec2, pageSize }, { Filters })) {
        found.push(...(page.Tags ?? []));
      }
      const fits = (tag: TagDescription, { Name, Values }: { Name: string; Values: string[] }): boolean =>
        values(tag, Name).some((value = '') => Values.some((pattern) => matches(pattern, value)));
      assert.deepEqual(
        found,
        tags.filter((tag) => Filters.every((each) => fits(tag, each))),
      );
    }),
    { numRuns: 100 },
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

test('of more snapshots than are looked at in one stretch, filters find all that match', async () => {
  const catalog = await openCatalog(`${server.dataDir}/catalog.sqlite`);
  const copied = 2 * STRETCH_ROWS + 500;
  const [model] = await catalog
    .selectFrom('snapshots')
    .selectAll()
    .where('snapshot_id', '=', all[0].SnapshotId as never)
    .execute();
  const columns = Object.keys(model).filter((column) => column !== 'snapshot_id' && column !== 'description');
  const rest = sql.join(columns.map((column) => sql.ref(column)));
  const numbers = sql`with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < ${copied})`;
  await catalog.transaction().execute(async (transaction) => {
    await sql`${numbers} insert into snapshots (snapshot_id, description, ${rest})
      select printf('snap-f%016x', n), 'copy ' || n, ${rest} from numbers, snapshots
      where snapshot_id = ${model.snapshot_id}`.execute(transaction);
    await sql`${numbers} insert into tags (resource_id, resource_type, account_id, region, tag_key, tag_value)
      select printf('snap-f%016x', n), 'snapshot', ${model.account_id}, ${model.region}, 'number', n from numbers`.execute(
      transaction,
    );
  });
  await catalog.destroy();
  const idsOf = (numbers: number[]): string[] => numbers.map((n) => `snap-f${n.toString(16).padStart(16, '0')}`);
  // Where a stretch ends depends on how many of the other ids come first.
  const aroundTheEnd = Array.from({ length: 60 }, (_, index) => STRETCH_ROWS - 40 + index);
  const several = [7, 77, ...aroundTheEnd, 2 * STRETCH_ROWS + 1, copied];
  const found = async (...Filters: Filter[]): Promise<(string | undefined)[]> => {
    const ids: (string | undefined)[] = [];
    for await (const { Snapshots = [] } of paginateDescribeSnapshots({ client: server.ec2 }, { Filters })) {
      ids.push(...Snapshots.map((snapshot) => snapshot.SnapshotId));
    }
    return ids;
  };
  const descriptions = several.map((n) => `copy ${n}`);
  assert.deepEqual(await found({ Name: 'description', Values: descriptions }), idsOf(several));
  assert.deepEqual(await found({ Name: 'tag:number', Values: [...several.map(String), 'none*'] }), idsOf(several));
  assert.deepEqual(await found({ Name: 'description', Values: ['copies*'] }), []);
  const sevens = Array.from({ length: copied }, (_, index) => index + 1).filter((n) => String(n).endsWith('77'));
  assert.deepEqual(await found({ Name: 'description', Values: ['copy *77'] }), [...idsOf(sevens)]);
  const { Tags = [] } = await server.ec2.send(
    new DescribeTagsCommand({ Filters: [{ Name: 'value', Values: ['2050?', '1', String(copied)] }] }),
  );
  assert.deepEqual(
    Tags.map((tag) => tag.Value),
    ['1', String(copied)],
  );
});
