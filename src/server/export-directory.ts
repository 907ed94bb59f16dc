import type { Catalog } from '../catalog/catalog.ts';
import type { DataPlane } from '../dataplane/data-plane.ts';
import type { ServeOrder } from '../dataplane/messages.ts';
import type { DataKeys } from '../keys/data-keys.ts';
import type { ExportDescription, ExportDirectory } from '../nbd/export.ts';
import { parseId } from '../types/ids.ts';
import { GIB } from '../types/units.ts';

/** A list is for people; any completed snapshot can be named all the same. */
const LISTED_SNAPSHOTS = 100;

/** The exports there are: volumes attached to running instances, and completed snapshots. */
export class CatalogExports implements ExportDirectory {
  readonly #catalog: Catalog;
  readonly #dataPlane: DataPlane;
  readonly #keys: DataKeys;

  constructor(catalog: Catalog, dataPlane: DataPlane, keys: DataKeys) {
    this.#catalog = catalog;
    this.#dataPlane = dataPlane;
    this.#keys = keys;
  }

  async list(): Promise<string[]> {
    const snapshots = await this.#catalog
      .selectFrom('snapshots')
      .select('snapshot_id')
      .where('state', '=', 'completed')
      .orderBy('started_at', 'desc')
      .limit(LISTED_SNAPSHOTS)
      .execute();
    return [...this.#dataPlane.exports(), ...snapshots.map((snapshot) => snapshot.snapshot_id)];
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
      return this.#dataPlane.exported(volumeId) === undefined ? undefined : { kind: 'volume', volumeId };
    }
    const snapshotId = parseId('snap', name);
    if (snapshotId === undefined) return undefined;
    const snapshot = await this.#catalog
      .selectFrom('snapshots')
      .select(['state', 'root', 'size_gib', 'data_key_id'])
      .where('snapshot_id', '=', snapshotId)
      .executeTakeFirst();
    if (snapshot?.state !== 'completed' || snapshot.root === null) return undefined;
    // A snapshot whose key cannot be had is one that cannot be read.
    const key = await this.#keys.open(snapshot.data_key_id).catch(() => null);
    if (key === null) return undefined;
    return { kind: 'snapshot', root: snapshot.root, sizeBytes: snapshot.size_gib * GIB, key: key?.bytes };
  }
}
