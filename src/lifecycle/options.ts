import type { Catalog } from '../catalog/catalog.ts';
import type { DataPlane } from '../dataplane/data-plane.ts';
import type { DataKeys } from '../keys/data-keys.ts';
import type { ObjectStore } from '../objects/object-store.ts';

/** What everything in this folder works with. */
export type LifecycleOptions = {
  catalog: Catalog;
  dataPlane: DataPlane;
  store: ObjectStore;
  /** Where archived snapshots are. */
  archive?: ObjectStore | undefined;
  keys: DataKeys;
  now: () => Date;
  log: (level: 'info' | 'warn' | 'error', message: string) => void;
};
