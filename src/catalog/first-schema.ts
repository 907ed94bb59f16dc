import type { Kysely, Migration } from 'kysely';

/** What the catalog of the first version had. */
export const FIRST_SCHEMA: Migration = {
  async up(db: Kysely<unknown>): Promise<void> {
    await db.schema
      .createTable('access_keys')
      .addColumn('access_key_id', 'text', (c) => c.primaryKey())
      .addColumn('secret_access_key', 'text', (c) => c.notNull())
      .addColumn('account_id', 'text', (c) => c.notNull())
      .addColumn('user_name', 'text', (c) => c.notNull())
      .execute();
    await db.schema
      .createTable('images')
      .addColumn('image_id', 'text', (c) => c.primaryKey())
      .addColumn('account_id', 'text', (c) => c.notNull())
      .addColumn('region', 'text', (c) => c.notNull())
      .addColumn('name', 'text', (c) => c.notNull())
      .addColumn('description', 'text', (c) => c.notNull())
      .addColumn('root_device_name', 'text', (c) => c.notNull())
      .addColumn('is_public', 'integer', (c) => c.notNull())
      .addColumn('created_at', 'text', (c) => c.notNull())
      .addColumn('architecture', 'text', (c) => c.notNull())
      .addColumn('virtualization_type', 'text', (c) => c.notNull())
      .addColumn('ena_support', 'integer', (c) => c.notNull())
      .addColumn('sriov_net_support', 'text')
      .execute();
    await db.schema
      .createTable('image_devices')
      .addColumn('image_id', 'text', (c) => c.notNull().references('images.image_id').onDelete('cascade'))
      .addColumn('device_name', 'text', (c) => c.notNull())
      .addColumn('snapshot_id', 'text')
      .addColumn('size_gib', 'integer', (c) => c.notNull())
      .addColumn('volume_type', 'text', (c) => c.notNull())
      .addColumn('delete_on_termination', 'integer', (c) => c.notNull())
      .addPrimaryKeyConstraint('image_devices_key', ['image_id', 'device_name'])
      .execute();
    await db.schema
      .createTable('instances')
      .addColumn('instance_id', 'text', (c) => c.primaryKey())
      .addColumn('account_id', 'text', (c) => c.notNull())
      .addColumn('region', 'text', (c) => c.notNull())
      .addColumn('reservation_id', 'text', (c) => c.notNull())
      .addColumn('launch_index', 'integer', (c) => c.notNull())
      .addColumn('image_id', 'text', (c) => c.notNull())
      .addColumn('instance_type', 'text', (c) => c.notNull())
      .addColumn('zone', 'text', (c) => c.notNull())
      .addColumn('root_device_name', 'text', (c) => c.notNull())
      .addColumn('state', 'text', (c) => c.notNull())
      .addColumn('launched_at', 'text', (c) => c.notNull())
      .addColumn('state_reason', 'text', (c) => c.notNull())
      .addColumn('terminated_at', 'text')
      .addColumn('protected', 'integer', (c) => c.notNull())
      .addColumn('client_token', 'text')
      .addColumn('client_token_request', 'text')
      .execute();
    await db.schema
      .createTable('volumes')
      .addColumn('volume_id', 'text', (c) => c.primaryKey())
      .addColumn('account_id', 'text', (c) => c.notNull())
      .addColumn('region', 'text', (c) => c.notNull())
      .addColumn('size_gib', 'integer', (c) => c.notNull())
      .addColumn('volume_type', 'text', (c) => c.notNull())
      .addColumn('iops', 'integer')
      .addColumn('throughput', 'integer')
      .addColumn('zone', 'text', (c) => c.notNull())
      .addColumn('state', 'text', (c) => c.notNull())
      .addColumn('created_at', 'text', (c) => c.notNull())
      .addColumn('snapshot_id', 'text')
      .addColumn('multi_attach', 'integer', (c) => c.notNull())
      .addColumn('auto_enable_io', 'integer', (c) => c.notNull())
      .addColumn('client_token', 'text')
      .addColumn('client_token_request', 'text')
      .addColumn('origin_root', 'text')
      .addColumn('hydrated', 'integer', (c) => c.notNull())
      .addColumn('base_boundary', 'integer', (c) => c.notNull())
      .addColumn('base_root', 'text')
      .execute();
    await db.schema
      .createTable('attachments')
      .addColumn('volume_id', 'text', (c) => c.notNull().references('volumes.volume_id').onDelete('cascade'))
      .addColumn('instance_id', 'text', (c) => c.notNull().references('instances.instance_id'))
      .addColumn('device_name', 'text', (c) => c.notNull())
      .addColumn('attached_at', 'text', (c) => c.notNull())
      .addColumn('delete_on_termination', 'integer', (c) => c.notNull())
      .addPrimaryKeyConstraint('attachments_key', ['volume_id', 'instance_id'])
      .execute();
    await db.schema
      .createTable('volume_modifications')
      .addColumn('volume_id', 'text', (c) => c.primaryKey().references('volumes.volume_id').onDelete('cascade'))
      .addColumn('state', 'text', (c) => c.notNull())
      .addColumn('message', 'text', (c) => c.notNull())
      .addColumn('started_at', 'text', (c) => c.notNull())
      .addColumn('ended_at', 'text')
      .addColumn('original_size_gib', 'integer', (c) => c.notNull())
      .addColumn('original_type', 'text', (c) => c.notNull())
      .addColumn('original_iops', 'integer')
      .addColumn('original_throughput', 'integer')
      .addColumn('target_size_gib', 'integer', (c) => c.notNull())
      .addColumn('target_type', 'text', (c) => c.notNull())
      .addColumn('target_iops', 'integer')
      .addColumn('target_throughput', 'integer')
      .execute();
    await db.schema
      .createTable('snapshot_sets')
      .addColumn('set_id', 'text', (c) => c.primaryKey())
      .addColumn('account_id', 'text', (c) => c.notNull())
      .addColumn('region', 'text', (c) => c.notNull())
      .addColumn('instance_id', 'text')
      .addColumn('description', 'text', (c) => c.notNull())
      .addColumn('started_at', 'text', (c) => c.notNull())
      .addColumn('hold_milliseconds', 'real', (c) => c.notNull())
      .addColumn('state', 'text', (c) => c.notNull())
      .execute();
    await db.schema
      .createTable('snapshots')
      .addColumn('snapshot_id', 'text', (c) => c.primaryKey())
      .addColumn('account_id', 'text', (c) => c.notNull())
      .addColumn('region', 'text', (c) => c.notNull())
      .addColumn('set_id', 'text', (c) => c.notNull().references('snapshot_sets.set_id'))
      .addColumn('volume_id', 'text', (c) => c.notNull())
      .addColumn('parent_snapshot_id', 'text')
      .addColumn('device_name', 'text')
      .addColumn('is_root', 'integer', (c) => c.notNull())
      .addColumn('volume_type', 'text', (c) => c.notNull())
      .addColumn('size_gib', 'integer', (c) => c.notNull())
      .addColumn('description', 'text', (c) => c.notNull())
      .addColumn('started_at', 'text', (c) => c.notNull())
      .addColumn('completed_at', 'text')
      .addColumn('state', 'text', (c) => c.notNull())
      .addColumn('state_message', 'text', (c) => c.notNull())
      .addColumn('boundary', 'integer')
      .addColumn('root', 'text')
      .addColumn('data_blocks', 'integer', (c) => c.notNull())
      .addColumn('stored_bytes', 'integer', (c) => c.notNull())
      .execute();
    await db.schema
      .createTable('replace_root_tasks')
      .addColumn('task_id', 'text', (c) => c.primaryKey())
      .addColumn('account_id', 'text', (c) => c.notNull())
      .addColumn('region', 'text', (c) => c.notNull())
      .addColumn('instance_id', 'text', (c) => c.notNull())
      .addColumn('client_token', 'text')
      .addColumn('snapshot_id', 'text')
      .addColumn('delete_replaced', 'integer', (c) => c.notNull())
      .addColumn('state', 'text', (c) => c.notNull())
      .addColumn('started_at', 'text', (c) => c.notNull())
      .addColumn('completed_at', 'text')
      .execute();
    await db.schema
      .createTable('secrets')
      .addColumn('name', 'text', (c) => c.primaryKey())
      .addColumn('value', 'text', (c) => c.notNull())
      .execute();
    await db.schema
      .createTable('direct_uploads')
      .addColumn('snapshot_id', 'text', (c) => c.primaryKey().references('snapshots.snapshot_id').onDelete('cascade'))
      .addColumn('parent_snapshot_id', 'text')
      .addColumn('parent_root', 'text')
      .addColumn('timeout_minutes', 'integer', (c) => c.notNull())
      .addColumn('active_at', 'text', (c) => c.notNull())
      .addColumn('client_token', 'text')
      .addColumn('client_token_request', 'text')
      .execute();
    await db.schema
      .createTable('direct_blocks')
      .addColumn('snapshot_id', 'text', (c) => c.notNull().references('snapshots.snapshot_id').onDelete('cascade'))
      .addColumn('block_index', 'integer', (c) => c.notNull())
      .addColumn('sha256', 'text', (c) => c.notNull())
      .addColumn('pack', 'text')
      .addColumn('pack_offset', 'integer', (c) => c.notNull())
      .addColumn('stored_length', 'integer', (c) => c.notNull())
      .addColumn('encoding', 'integer', (c) => c.notNull())
      .addPrimaryKeyConstraint('direct_blocks_key', ['snapshot_id', 'block_index'])
      .execute();
    await db.schema
      .createTable('snapshot_permissions')
      .addColumn('snapshot_id', 'text', (c) => c.notNull().references('snapshots.snapshot_id').onDelete('cascade'))
      .addColumn('grantee', 'text', (c) => c.notNull())
      .addPrimaryKeyConstraint('snapshot_permissions_key', ['snapshot_id', 'grantee'])
      .execute();
    await db.schema
      .createTable('tags')
      .addColumn('resource_id', 'text', (c) => c.notNull())
      .addColumn('resource_type', 'text', (c) => c.notNull())
      .addColumn('account_id', 'text', (c) => c.notNull())
      .addColumn('region', 'text', (c) => c.notNull())
      .addColumn('tag_key', 'text', (c) => c.notNull())
      .addColumn('tag_value', 'text', (c) => c.notNull())
      .addPrimaryKeyConstraint('tags_key', ['resource_id', 'tag_key'])
      .execute();
    for (const [table, columns] of [
      ['instances', ['account_id', 'instance_id']],
      ['volumes', ['account_id', 'volume_id']],
      ['attachments', ['instance_id']],
      ['snapshots', ['account_id', 'snapshot_id']],
      ['snapshots', ['set_id']],
      ['snapshots', ['volume_id', 'boundary']],
      ['snapshots', ['state']],
      ['snapshot_permissions', ['grantee']],
      ['snapshot_sets', ['account_id', 'started_at']],
      ['tags', ['account_id', 'tag_key', 'tag_value']],
    ] as const) {
      await db.schema
        .createIndex(`${table}_by_${columns.join('_')}`)
        .on(table)
        .columns([...columns])
        .execute();
    }
  },
};
