import assert from 'node:assert/strict';
import type { Catalog } from '../../src/catalog/catalog.ts';
import type { InstanceState, SnapshotRow } from '../../src/catalog/schema.ts';
import { type InstanceId, knownId, newId, parseAccountId, type VolumeId } from '../../src/types/ids.ts';
import { asEpoch } from '../../src/types/units.ts';

export const OWNER = { account_id: parseAccountId('000000000001') ?? assert.fail(), region: 'us-east-1' };

/** Puts a snapshot, alone in its set, into the catalog: completed if it has a root, else pending, of a cut if it has a boundary. */
export async function insertSnapshot(
  catalog: Catalog,
  given: { startedAt?: number } & Partial<
    Pick<SnapshotRow, 'root' | 'data_blocks' | 'data_key_id' | 'volume_id' | 'boundary'>
  >,
): Promise<SnapshotRow> {
  const { startedAt = 0, ...values } = given;
  const started_at = new Date(startedAt).toISOString();
  const state = values.root == null ? 'pending' : 'completed';
  const set = { set_id: newId('set'), ...OWNER, instance_id: null, description: '', started_at, state } as const;
  await catalog
    .insertInto('snapshot_sets')
    .values({ ...set, hold_milliseconds: 0 })
    .execute();
  const row: SnapshotRow = {
    snapshot_id: newId('snap'),
    ...OWNER,
    set_id: set.set_id,
    volume_id: knownId('vol', 'vol-ffffffff'),
    parent_snapshot_id: null,
    device_name: null,
    is_root: 0,
    volume_type: 'gp3',
    size_gib: 1,
    description: '',
    started_at,
    completed_at: state === 'completed' ? started_at : null,
    state,
    state_message: '',
    boundary: null,
    root: null,
    data_blocks: 0,
    stored_bytes: 0,
    data_key_id: null,
    kms_key_arn: null,
    binned_at: null,
    binned_until: null,
    ...values,
  };
  await catalog.insertInto('snapshots').values(row).execute();
  return row;
}

/** Puts an attached volume into the catalog. */
export async function insertVolume(catalog: Catalog): Promise<VolumeId> {
  const volume_id = newId('vol');
  await catalog
    .insertInto('volumes')
    .values({
      volume_id,
      ...OWNER,
      size_gib: 1,
      volume_type: 'gp3',
      iops: null,
      throughput: null,
      zone: 'us-east-1a',
      state: 'in-use',
      created_at: new Date(0).toISOString(),
      snapshot_id: null,
      multi_attach: 0,
      auto_enable_io: 0,
      client_token: null,
      client_token_request: null,
      origin_root: null,
      hydrated: 1,
      base_boundary: asEpoch(1),
      base_root: null,
      data_key_id: null,
      kms_key_arn: null,
      origin_key_id: null,
    })
    .execute();
  return volume_id;
}

/** Puts an instance with these volumes into the catalog. */
export async function insertInstance(
  catalog: Catalog,
  state: InstanceState,
  volumes: readonly VolumeId[],
): Promise<InstanceId> {
  const instance_id = newId('i');
  await catalog
    .insertInto('instances')
    .values({
      instance_id,
      ...OWNER,
      reservation_id: newId('r'),
      launch_index: 0,
      image_id: knownId('ami', 'ami-ffffffff'),
      instance_type: 'm1.small',
      zone: 'us-east-1a',
      root_device_name: '/dev/xvda',
      state,
      launched_at: new Date(0).toISOString(),
      state_reason: '',
      terminated_at: null,
      protected: 0,
      client_token: null,
      client_token_request: null,
    })
    .execute();
  for (const [index, volume_id] of volumes.entries()) {
    const device_name = `/dev/sd${String.fromCharCode(102 + index)}`;
    const attached_at = new Date(0).toISOString();
    await catalog
      .insertInto('attachments')
      .values({ volume_id, instance_id, device_name, attached_at, delete_on_termination: 0 })
      .execute();
  }
  return instance_id;
}
