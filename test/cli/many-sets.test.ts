import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sql } from 'kysely';
import type { SetReport } from '../../src/admin/sets.ts';
import { openCatalog } from '../../src/catalog/catalog.ts';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { startTestServer } from '../support/server.ts';
import { tool } from '../support/tools.ts';

const CLEANCUT = new URL('../../bin/cleancut.js', import.meta.url).pathname;
const COPIES = 1200;

test('thousands of sets are listed page by page: all of them, or the latest, oldest first', async (t) => {
  const server = await startTestServer(t);
  t.after(() => server.stop());
  const instance = await launchInstance(server.ec2, [1]);
  const [first] = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId));
  const catalog = await openCatalog(`${server.dataDir}/catalog.sqlite`);
  const { set_id } = await catalog
    .selectFrom('snapshots')
    .select('set_id')
    .where('snapshot_id', '=', first.SnapshotId as never)
    .executeTakeFirstOrThrow();
  const copy = async (table: 'snapshot_sets' | 'snapshots', changed: Record<string, ReturnType<typeof sql>>) => {
    const model = await catalog.selectFrom(table).selectAll().where('set_id', '=', set_id).executeTakeFirstOrThrow();
    const columns = Object.keys(model);
    await sql`with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < ${COPIES})
      insert into ${sql.table(table)} (${sql.join(columns.map((column) => sql.ref(column)))})
      select ${sql.join(columns.map((column) => changed[column] ?? sql.ref(column)))}
      from numbers, (select * from ${sql.table(table)} where set_id = ${set_id} limit 1)`.execute(catalog);
  };
  // Three at a time were cut in the same moment, later than the real one.
  const setId = sql`printf('set-%017x', n)`;
  await copy('snapshot_sets', {
    set_id: setId,
    started_at: sql`printf('2100-01-01T00:%02d:%02d.000Z', n / 180, n / 3 % 60)`,
  });
  await copy('snapshots', { set_id: setId, snapshot_id: sql`printf('snap-%017x', n)` });
  await catalog.destroy();
  const cleancut = (...argv: string[]) => tool(process.execPath, [CLEANCUT, ...argv, '--data-dir', server.dataDir]);
  const listed = async (...flags: string[]): Promise<string[]> =>
    JSON.parse(await cleancut('sets', '--json', ...flags)).sets.map((set: SetReport) => set.setId);
  const ids = [
    set_id,
    ...Array.from({ length: COPIES }, (_, index) => `set-${(index + 1).toString(16).padStart(17, '0')}`),
  ];
  assert.deepEqual(await listed(), ids);
  assert.deepEqual(await listed('--latest', '7'), ids.slice(-7));
  assert.deepEqual(await listed('--latest', '700'), ids.slice(-700));
  const lines = (await cleancut('sets')).trimEnd().split('\n');
  // Top, headings, a line below them, bottom.
  assert.equal(lines.length, instance.volumes.length + 1 + COPIES + 4);
  assert.equal(new Set(lines.map((line) => line.length)).size, 1, 'all as wide as each other');
  assert.ok(ids.every((id, index) => lines[index === 0 ? 3 : index + 4].includes(id)));
  // Who reads only the beginning hears no complaints.
  const shell = `set -o pipefail; "$0" "$1" sets --data-dir "$2" | head -n 1`;
  assert.equal(
    await tool('bash', ['-c', `exec 2>&1; ${shell}`, process.execPath, CLEANCUT, server.dataDir]),
    `${lines[0]}\n`,
  );
  const full = tool('bash', [
    '-c',
    '"$0" "$1" sets --data-dir "$2" > /dev/full',
    process.execPath,
    CLEANCUT,
    server.dataDir,
  ]);
  await assert.rejects(full, /what it prints could not be written: .*ENOSPC/);
  await assert.rejects(cleancut('sets', '--latest', '0'), /Expected a whole number, 1 or more/);
});
