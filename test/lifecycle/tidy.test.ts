import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openCatalog } from '../../src/catalog/catalog.ts';
import type { DataPlane } from '../../src/dataplane/data-plane.ts';
import type { DataKeys } from '../../src/keys/data-keys.ts';
import { Lifecycle } from '../../src/lifecycle/lifecycle.ts';
import type { SnapshotId } from '../../src/types/ids.ts';
import { insertSnapshot } from '../support/catalog-rows.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const HOUR = 3_600_000;
const START = Date.parse('2026-01-01T00:00:00Z');

test('nothing stays pending for ever: lost imports and idle direct uploads end in error, in their time', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  let now = START;
  // Nothing here reaches the data plane: these snapshots have no cut.
  const dataPlane = { stopping: false } as DataPlane;
  const lifecycle = new Lifecycle(
    {
      catalog,
      dataPlane,
      store: new MemoryStore(),
      keys: {} as DataKeys,
      now: () => new Date(now),
      log: () => undefined,
    },
    { everyDays: 0, bytesPerSecond: 1 },
  );
  const imported = (await insertSnapshot(catalog, { startedAt: START })).snapshot_id;
  const direct = (await insertSnapshot(catalog, { startedAt: START })).snapshot_id;
  await catalog
    .insertInto('direct_uploads')
    .values({
      snapshot_id: direct,
      parent_snapshot_id: null,
      parent_root: null,
      timeout_minutes: 60,
      active_at: new Date(START).toISOString(),
      client_token: null,
      client_token_request: null,
    })
    .execute();
  const stateOf = async (id: SnapshotId): Promise<string> => {
    const row = await catalog
      .selectFrom('snapshots')
      .selectAll()
      .where('snapshot_id', '=', id)
      .executeTakeFirstOrThrow();
    return `${row.state} ${row.state_message}`.trim();
  };
  now = START + 0.9 * HOUR;
  await lifecycle.tidy();
  assert.deepEqual([await stateOf(imported), await stateOf(direct)], ['pending', 'pending']);
  now = START + 1.1 * HOUR;
  await lifecycle.tidy();
  assert.equal(await stateOf(imported), 'pending');
  assert.match(await stateOf(direct), /^error The snapshot was not completed, nor written to, for 60 minutes/);
  now = START + 25 * HOUR;
  await lifecycle.tidy();
  assert.match(await stateOf(imported), /^error The import was not finished within a day/);
  await catalog.destroy();
});
