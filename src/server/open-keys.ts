import type { Catalog } from '../catalog/catalog.ts';
import { DataKeys } from '../keys/data-keys.ts';
import type { KeyService } from '../keys/key-service.ts';
import { Keyring } from '../keys/keyring.ts';
import { ensureKeyFile, type Protection } from '../keys/root-key.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import { NodeDisk } from '../volumes/node-disk.ts';
import { dataPaths } from './data-directory.ts';

/** Where KMS keys are kept, and what protects them. */
export type KeySettings = {
  dataDir: string;
  keyFile?: string | undefined;
  keyPassphrase?: string | undefined;
  kms?: string | undefined;
  region: string;
};

/** @throws when the keyring is protected by something else, with what to do */
export async function openKeyService(settings: KeySettings, store: ObjectStore, now: () => Date): Promise<KeyService> {
  if (settings.kms !== undefined) {
    // Loaded where it is used: the client takes time to import.
    const { KmsKeys } = await import('../keys/kms-keys.ts');
    return new KmsKeys(settings.kms === 'aws' ? undefined : settings.kms, settings.region);
  }
  const disk = new NodeDisk();
  const paths = dataPaths(settings.dataDir);
  let protection: Protection;
  if (settings.keyPassphrase !== undefined) {
    protection = { kind: 'passphrase', passphrase: settings.keyPassphrase };
  } else {
    const path = settings.keyFile ?? paths.keyFile;
    // One that the operator named must be there: a new one would open nothing.
    if (settings.keyFile === undefined) ensureKeyFile(disk, path);
    protection = { kind: 'file', path };
  }
  return Keyring.open({ disk, path: paths.keyring, store, protection, now });
}

export async function openDataKeys(settings: KeySettings, catalog: Catalog, store: ObjectStore): Promise<DataKeys> {
  return new DataKeys(catalog, await openKeyService(settings, store, () => new Date()));
}
