import { accountSetting } from '../catalog/account-settings.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { granteesOf } from '../catalog/permissions.ts';
import type { DataPlane } from '../dataplane/data-plane.ts';
import type { ServeOrder } from '../dataplane/messages.ts';
import type { DataKeys } from '../keys/data-keys.ts';
import type { ExportDescription, ExportDirectory } from '../nbd/export.ts';
import {
  type AccountId,
  type InstanceId,
  parseAccountId,
  parseId,
  type SnapshotId,
  type VolumeId,
} from '../types/ids.ts';
import { GIB } from '../types/units.ts';

/** A list is for people; any completed snapshot can be named all the same. */
const LISTED_SNAPSHOTS = 100;

/** Whose exports a client may know of: everyone's, an account's, or an instance's. */
export type Scope =
  | { kind: 'all' }
  | { kind: 'account'; accountId: AccountId }
  | { kind: 'instance'; instanceId: InstanceId }
  | { kind: 'none' };

/** What an identity stands for, that a client has proven over TLS: an account's id, or an instance's. */
export function scopeOf(identity: string): Scope {
  const accountId = parseAccountId(identity);
  if (accountId !== undefined) return { kind: 'account', accountId };
  const instanceId = parseId('i', identity);
  return instanceId === undefined ? { kind: 'none' } : { kind: 'instance', instanceId };
}

/** The exports there are: volumes attached to running instances, and completed snapshots. */
export class CatalogExports implements ExportDirectory {
  readonly #catalog: Catalog;
  readonly #dataPlane: DataPlane;
  readonly #keys: DataKeys;
  readonly #scope: Scope;

  constructor(catalog: Catalog, dataPlane: DataPlane, keys: DataKeys, scope: Scope = { kind: 'all' }) {
    this.#scope = scope;
    this.#catalog = catalog;
    this.#dataPlane = dataPlane;
    this.#keys = keys;
  }

  /** The same exports, as far as a client may know of them. */
  scopedTo(scope: Scope): CatalogExports {
    return new CatalogExports(this.#catalog, this.#dataPlane, this.#keys, scope);
  }

  async list(): Promise<string[]> {
    const volumes: string[] = [];
    for (const volumeId of this.#dataPlane.exports()) if (await this.#mayUse(volumeId)) volumes.push(volumeId);
    const scope = this.#scope;
    if (scope.kind === 'instance' || scope.kind === 'none') return volumes;
    let query = this.#catalog
      .selectFrom('snapshots')
      .select('snapshot_id')
      .where('state', '=', 'completed')
      .where('binned_at', 'is', null)
      .orderBy('started_at', 'desc')
      .limit(LISTED_SNAPSHOTS);
    if (scope.kind === 'account') query = query.where('account_id', '=', scope.accountId);
    return [...volumes, ...(await query.execute()).map((snapshot) => snapshot.snapshot_id)];
  }

  async describe(name: string): Promise<ExportDescription | undefined> {
    const target = await this.find(name);
    if (target === undefined) return undefined;
    if (target.kind === 'snapshot') {
      return { name, sizeBytes: target.sizeBytes, readOnly: true, description: `EBS snapshot ${name}` };
    }
    const sizeBytes = this.#dataPlane.exported(target.volumeId)?.sizeBytes;
    if (sizeBytes === undefined) return undefined;
    return { name, sizeBytes, readOnly: false, description: `EBS volume ${name}` };
  }

  /** What an export name stands for; undefined when it is not to be had. */
  async find(name: string): Promise<ServeOrder['target'] | undefined> {
    const volumeId = parseId('vol', name);
    if (volumeId !== undefined) {
      const exported = this.#dataPlane.exported(volumeId) !== undefined;
      return exported && (await this.#mayUse(volumeId)) ? { kind: 'volume', volumeId } : undefined;
    }
    const snapshotId = parseId('snap', name);
    if (snapshotId === undefined) return undefined;
    const snapshot = await this.#catalog
      .selectFrom('snapshots')
      .select(['snapshot_id', 'account_id', 'region', 'state', 'root', 'size_gib', 'data_key_id'])
      .where('snapshot_id', '=', snapshotId)
      .where('binned_at', 'is', null)
      .executeTakeFirst();
    if (snapshot?.state !== 'completed' || snapshot.root === null) return undefined;
    if (!(await this.#mayRead(snapshot))) return undefined;
    // A snapshot whose key cannot be had is one that cannot be read.
    const key = await this.#keys.open(snapshot.data_key_id).catch(() => null);
    if (key === null) return undefined;
    return { kind: 'snapshot', root: snapshot.root, sizeBytes: snapshot.size_gib * GIB, key: key?.bytes };
  }

  async #mayUse(volumeId: VolumeId): Promise<boolean> {
    const scope = this.#scope;
    switch (scope.kind) {
      case 'all':
        return true;
      case 'none':
        return false;
      case 'account': {
        const row = await this.#catalog
          .selectFrom('volumes')
          .select('volume_id')
          .where('volume_id', '=', volumeId)
          .where('account_id', '=', scope.accountId)
          .executeTakeFirst();
        return row !== undefined;
      }
      case 'instance': {
        const row = await this.#catalog
          .selectFrom('attachments')
          .select('volume_id')
          .where('volume_id', '=', volumeId)
          .where('instance_id', '=', scope.instanceId)
          .executeTakeFirst();
        return row !== undefined;
      }
      default:
        return scope satisfies never;
    }
  }

  /** An account reads its own snapshots, those shared with it, and public ones. */
  async #mayRead(snapshot: { snapshot_id: SnapshotId; account_id: AccountId; region: string }): Promise<boolean> {
    const scope = this.#scope;
    if (scope.kind !== 'account') return scope.kind === 'all';
    if (snapshot.account_id === scope.accountId) return true;
    const grantees = (await granteesOf(this.#catalog, [snapshot.snapshot_id])).get(snapshot.snapshot_id) ?? [];
    if (grantees.includes(scope.accountId)) return true;
    const owner = { accountId: snapshot.account_id, region: snapshot.region };
    const blocked = await accountSetting(this.#catalog, owner, 'snapshot-block-public-access');
    return grantees.includes('all') && blocked !== 'block-all-sharing';
  }
}
