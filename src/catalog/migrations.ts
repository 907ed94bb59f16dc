import { type Kysely, type Migration, sql } from 'kysely';
import { FIRST_SCHEMA } from './first-schema.ts';

/** The schema's history, in order; a step is never changed once it has been released. */
export const MIGRATIONS: Record<string, Migration> = {
  '0001-first': FIRST_SCHEMA,
  '0002-encryption': {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema
        .createTable('data_keys')
        .addColumn('data_key_id', 'text', (c) => c.primaryKey())
        .addColumn('kms_key_arn', 'text', (c) => c.notNull())
        .addColumn('wrapped', 'text', (c) => c.notNull())
        .execute();
      for (const table of ['volumes', 'snapshots']) {
        await db.schema
          .alterTable(table)
          .addColumn('data_key_id', 'text', (c) => c.references('data_keys.data_key_id'))
          .execute();
        await db.schema.alterTable(table).addColumn('kms_key_arn', 'text').execute();
      }
      await db.schema
        .alterTable('volumes')
        .addColumn('origin_key_id', 'text', (c) => c.references('data_keys.data_key_id'))
        .execute();
      await db.schema
        .alterTable('direct_blocks')
        .addColumn('block_hash', 'text', (c) => c.notNull().defaultTo(''))
        .execute();
      await sql`update direct_blocks set block_hash = sha256`.execute(db);
      await db.schema
        .createTable('snapshot_copies')
        .addColumn('snapshot_id', 'text', (c) => c.primaryKey().references('snapshots.snapshot_id').onDelete('cascade'))
        .addColumn('source_root', 'text', (c) => c.notNull())
        .addColumn('source_key_id', 'text', (c) => c.references('data_keys.data_key_id'))
        .execute();
      await db.schema
        .createTable('account_settings')
        .addColumn('account_id', 'text', (c) => c.notNull())
        .addColumn('region', 'text', (c) => c.notNull())
        .addColumn('name', 'text', (c) => c.notNull())
        .addColumn('value', 'text', (c) => c.notNull())
        .addPrimaryKeyConstraint('account_settings_key', ['account_id', 'region', 'name'])
        .execute();
    },
  },
  '0003-identity': {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema
        .createTable('users')
        .addColumn('account_id', 'text', (c) => c.notNull())
        .addColumn('user_name', 'text', (c) => c.notNull())
        .addColumn('created_at', 'text', (c) => c.notNull())
        .addPrimaryKeyConstraint('users_key', ['account_id', 'user_name'])
        .execute();
      await db.schema
        .createTable('user_policies')
        .addColumn('account_id', 'text', (c) => c.notNull())
        .addColumn('user_name', 'text', (c) => c.notNull())
        .addColumn('policy_name', 'text', (c) => c.notNull())
        .addColumn('document', 'text', (c) => c.notNull())
        .addPrimaryKeyConstraint('user_policies_key', ['account_id', 'user_name', 'policy_name'])
        .execute();
      await db.schema
        .createTable('sessions')
        .addColumn('access_key_id', 'text', (c) => c.primaryKey())
        .addColumn('parent_key_id', 'text', (c) =>
          c.notNull().references('access_keys.access_key_id').onDelete('cascade'),
        )
        .addColumn('account_id', 'text', (c) => c.notNull())
        .addColumn('user_name', 'text', (c) => c.notNull())
        .addColumn('secret_access_key', 'text', (c) => c.notNull())
        .addColumn('session_token', 'text', (c) => c.notNull())
        .addColumn('expires_at', 'text', (c) => c.notNull())
        .execute();
      await db.schema
        .alterTable('access_keys')
        .addColumn('created_at', 'text', (c) => c.notNull().defaultTo(''))
        .execute();
      await db.schema
        .alterTable('access_keys')
        .addColumn('enabled', 'integer', (c) => c.notNull().defaultTo(1))
        .execute();
      await db.schema
        .alterTable('access_keys')
        .addColumn('sealed', 'integer', (c) => c.notNull().defaultTo(0))
        .execute();
      // Until now every key was an administrator's.
      await sql`insert into users select distinct account_id, user_name, '' from access_keys`.execute(db);
      await sql`insert into user_policies select distinct account_id, user_name, 'AdministratorAccess',
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}' from access_keys`.execute(
        db,
      );
    },
  },
  '0004-repacking': {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema
        .createTable('retired_roots')
        .addColumn('root', 'text', (c) => c.primaryKey())
        .addColumn('retired_at', 'text', (c) => c.notNull())
        .execute();
      await db.schema
        .createTable('stale_records')
        .addColumn('snapshot_id', 'text', (c) => c.primaryKey().references('snapshots.snapshot_id').onDelete('cascade'))
        .execute();
      await db.schema.createIndex('snapshots_by_root').on('snapshots').column('root').execute();
    },
  },
  '0005-limits': {
    async up(db: Kysely<unknown>): Promise<void> {
      // The limit of an account is looked at with each CreateSnapshots: counting 100,000 rows took 3.8 ms.
      await db.schema
        .createTable('snapshot_counts')
        .addColumn('account_id', 'text', (c) => c.primaryKey())
        .addColumn('number', 'integer', (c) => c.notNull())
        .execute();
      await sql`insert into snapshot_counts select account_id, count(*) from snapshots group by account_id`.execute(db);
      await sql`create trigger snapshot_counted after insert on snapshots begin
        insert into snapshot_counts values (new.account_id, 1)
        on conflict (account_id) do update set number = number + 1; end`.execute(db);
      await sql`create trigger snapshot_uncounted after delete on snapshots begin
        update snapshot_counts set number = number - 1 where account_id = old.account_id; end`.execute(db);
      await sql`create index snapshots_pending on snapshots (volume_id) where state = 'pending'`.execute(db);
    },
  },
  '0006-deleted-records': {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema
        .createTable('deleted_records')
        .addColumn('snapshot_id', 'text', (c) => c.primaryKey())
        .addColumn('set_id', 'text', (c) => c.notNull())
        .execute();
    },
  },
  '0007-data-keys': {
    async up(db: Kysely<unknown>): Promise<void> {
      // Each minute it is asked which keys are in use no more: going through 100,000 snapshots for that took 25 ms.
      await sql`create index snapshots_by_data_key on snapshots (data_key_id) where data_key_id is not null`.execute(
        db,
      );
    },
  },
  '0008-changes-of-records': {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema
        .alterTable('stale_records')
        .addColumn('changes', 'integer', (c) => c.notNull().defaultTo(1))
        .execute();
    },
  },
  '0009-requests-of-replacements': {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema.alterTable('replace_root_tasks').addColumn('client_token_request', 'text').execute();
    },
  },
  '0010-rates-of-images': {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema.alterTable('image_devices').addColumn('iops', 'integer').execute();
      await db.schema.alterTable('image_devices').addColumn('throughput', 'integer').execute();
    },
  },
  '0011-blocks-by-themselves': {
    async up(db: Kysely<unknown>): Promise<void> {
      // They went with their snapshot, all at once: for a million, nobody was answered for two seconds. Now they are swept.
      await db.schema.alterTable('direct_blocks').renameTo('owned_blocks').execute();
      await db.schema
        .createTable('direct_blocks')
        .addColumn('snapshot_id', 'text', (c) => c.notNull())
        .addColumn('block_index', 'integer', (c) => c.notNull())
        .addColumn('sha256', 'text', (c) => c.notNull())
        .addColumn('block_hash', 'text', (c) => c.notNull())
        .addColumn('pack', 'text')
        .addColumn('pack_offset', 'integer', (c) => c.notNull())
        .addColumn('stored_length', 'integer', (c) => c.notNull())
        .addColumn('encoding', 'integer', (c) => c.notNull())
        .addPrimaryKeyConstraint('direct_blocks_key', ['snapshot_id', 'block_index'])
        .execute();
      await sql`insert into direct_blocks
        select snapshot_id, block_index, sha256, block_hash, pack, pack_offset, stored_length, encoding
        from owned_blocks`.execute(db);
      await db.schema.dropTable('owned_blocks').execute();
    },
  },
  '0012-snapshot-locks': {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema
        .createTable('snapshot_locks')
        .addColumn('snapshot_id', 'text', (c) => c.primaryKey().references('snapshots.snapshot_id').onDelete('cascade'))
        .addColumn('mode', 'text', (c) => c.notNull())
        .addColumn('cool_off_hours', 'integer')
        .addColumn('created_at', 'text', (c) => c.notNull())
        .addColumn('set_at', 'text', (c) => c.notNull())
        .addColumn('duration_days', 'integer', (c) => c.notNull())
        .addColumn('expires_at', 'text')
        .execute();
    },
  },
  '0013-recycle-bin': {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema.alterTable('snapshots').addColumn('binned_at', 'text').execute();
      await db.schema.alterTable('snapshots').addColumn('binned_until', 'text').execute();
      // Lists are of what is in the bin, or of what is not: neither goes through the other.
      await db.schema.dropIndex('snapshots_by_account_id_snapshot_id').execute();
      await sql`create index snapshots_out_of_bin on snapshots (account_id, snapshot_id) where binned_at is null`.execute(
        db,
      );
      await sql`create index snapshots_in_bin on snapshots (account_id, snapshot_id) where binned_at is not null`.execute(
        db,
      );
      // Each minute it is asked whose time is over.
      await sql`create index snapshots_by_exit on snapshots (binned_until) where binned_until is not null`.execute(db);
      await db.schema
        .createTable('retention_rules')
        .addColumn('rule_id', 'text', (c) => c.primaryKey())
        .addColumn('account_id', 'text', (c) => c.notNull())
        .addColumn('region', 'text', (c) => c.notNull())
        .addColumn('description', 'text', (c) => c.notNull())
        .addColumn('retention_days', 'integer', (c) => c.notNull())
        .addColumn('resource_tags', 'text', (c) => c.notNull())
        .addColumn('exclude_resource_tags', 'text', (c) => c.notNull())
        .addColumn('tags', 'text', (c) => c.notNull())
        .addColumn('unlock_delay_days', 'integer')
        .addColumn('unlocks_at', 'text')
        .execute();
      await db.schema
        .createIndex('retention_rules_by_owner')
        .on('retention_rules')
        .columns(['account_id', 'region'])
        .execute();
    },
  },
  '0014-archive': {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema
        .createTable('snapshot_archives')
        .addColumn('snapshot_id', 'text', (c) => c.primaryKey().references('snapshots.snapshot_id').onDelete('cascade'))
        .addColumn('operation', 'text', (c) => c.notNull())
        .addColumn('status', 'text', (c) => c.notNull())
        .addColumn('detail', 'text', (c) => c.notNull())
        .addColumn('started_at', 'text', (c) => c.notNull())
        .addColumn('root', 'text')
        .addColumn('archived_at', 'text')
        .addColumn('restore_days', 'integer')
        .addColumn('restored_until', 'text')
        .execute();
      await sql`create index snapshot_archives_by_end on snapshot_archives (restored_until)
        where restored_until is not null`.execute(db);
      await db.schema
        .createTable('deleted_archives')
        .addColumn('snapshot_id', 'text', (c) => c.primaryKey())
        .execute();
    },
  },
};
