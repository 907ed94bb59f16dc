import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CreateTagsCommand, DescribeTagsCommand, ModifySnapshotAttributeCommand } from '@aws-sdk/client-ec2';
import { openCatalog } from '../../src/catalog/catalog.ts';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { startProxiedServer } from '../support/proxied-server.ts';
import { startTestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool } from '../support/tools.ts';

const CLEANCUT = new URL('../../bin/cleancut.js', import.meta.url).pathname;

// A request that gets no answer is given up after 150 s (five attempts of 30 s).
test('a store that does not answer: tags and permissions are changed all the same, and a kill right after leaves nothing old in the bucket', {
  timeout: 100_000,
}, async (t) => {
  const { s3, proxy, options, server } = await startProxiedServer(t);
  const instance = await launchInstance(server.ec2, [1]);
  const [{ SnapshotId }] = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId));
  assert.ok(SnapshotId);
  const share = { SnapshotId, UserIds: ['000000000002'] };
  await server.ec2.send(new ModifySnapshotAttributeCommand({ ...share, OperationType: 'add' }));

  proxy.chooseFault = (method, path) =>
    method === 'PUT' && path.includes(`/snapshots/${SnapshotId}`) ? 'no answer' : undefined;
  await server.ec2.send(new CreateTagsCommand({ Resources: [SnapshotId], Tags: [{ Key: 'kept', Value: 'yes' }] }));
  await server.ec2.send(new ModifySnapshotAttributeCommand({ ...share, OperationType: 'remove' }));
  const { Tags = [] } = await server.ec2.send(new DescribeTagsCommand({}));
  assert.deepEqual(
    Tags.map(({ ResourceId, Key }) => [ResourceId, Key]),
    [[SnapshotId, 'kept']],
  );
  assert.ok((proxy.counts.get('no answer') ?? 0) > 0);
  await server.kill();

  proxy.chooseFault = () => undefined;
  const next = await startTestServer(t, { ...options, dataDir: server.dataDir });
  await next.admin.ask('collect', { remove: true });
  assert.equal(await next.stop(), 0);
  const dataDir = temporaryDirectory(t);
  const flags = ['--object-store', s3.url, '--data-dir', dataDir, '--snapshots-only'];
  await tool(process.execPath, [CLEANCUT, 'rebuild', ...flags], s3.environment);
  const rebuilt = await openCatalog(`${dataDir}/catalog.sqlite`);
  t.after(() => rebuilt.destroy());
  const tags = await rebuilt.selectFrom('tags').select(['resource_id', 'tag_key']).execute();
  assert.deepEqual(tags, [{ resource_id: SnapshotId, tag_key: 'kept' }]);
  assert.deepEqual(await rebuilt.selectFrom('snapshot_permissions').selectAll().execute(), []);
});
