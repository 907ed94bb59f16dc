import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Catalog, openCatalog } from '../../src/catalog/catalog.ts';
import type { SnapshotRow } from '../../src/catalog/schema.ts';
import type { DataPlane } from '../../src/dataplane/data-plane.ts';
import type { DataKeys } from '../../src/keys/data-keys.ts';
import { Lifecycle } from '../../src/lifecycle/lifecycle.ts';
import { knownId, newId, parseAccountId, type SnapshotId } from '../../src/types/ids.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const HOUR = 3_600_000;
const START = Date.parse('2026-01-01T00:00:00Z');
const OWNER = { account_id: parseAccountId('000000000001') ?? assert.fail(), region: 'us-east-1' };

async function insertPending(catalog: Catalog): Promise<SnapshotId> {
  const started_at = new Date(START).toISOString();
  const set_id = newId('set');
  await catalog
    .insertInto('snapshot_sets')
    .values({
      set_id,
      ...OWNER,
      instance_id: null,
      description: '',
      started_at,
      hold_milliseconds: 0,
      state: 'pending',
    })
    .execute();
  const row: SnapshotRow = {
    snapshot_id: newId('snap'),
    ...OWNER,
    set_id,
    volume_id: knownId('vol', 'vol-ffffffff'),
    parent_snapshot_id: null,
    device_name: null,
    is_root: 0,
    volume_type: 'gp2',
    size_gib: 1,
    description: '',
    started_at,
    completed_at: null,
    state: 'pending',
    state_message: '',
    boundary: null,
    root: null,
    data_blocks: 0,
    stored_bytes: 0,
    data_key_id: null,
    kms_key_arn: null,
  };
  await catalog.insertInto('snapshots').values(row).execute();
  return row.snapshot_id;
}

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
  const imported = await insertPending(catalog);
  const direct = await insertPending(catalog);
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
