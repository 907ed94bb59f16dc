import { boxSalt, SecretBox } from '../auth/secret-box.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { DataKeys } from '../keys/data-keys.ts';
import type { KeyService } from '../keys/key-service.ts';
import { Keyring } from '../keys/keyring.ts';
import { ensureKeyFile, type Protection, rootKey } from '../keys/root-key.ts';
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

/** What protects what this server keeps of secrets: the keyring, users' secrets. */
async function protectionOf(settings: KeySettings): Promise<Protection> {
  if (settings.keyPassphrase !== undefined) return { kind: 'passphrase', passphrase: settings.keyPassphrase };
  const path = settings.keyFile ?? dataPaths(settings.dataDir).keyFile;
  // One that the operator named must be there: a new one would open nothing.
  if (settings.keyFile === undefined) await ensureKeyFile(new NodeDisk(), path);
  return { kind: 'file', path };
}

/** The box in which the catalog keeps secrets, and the one for messages to be decoded later. */
export async function openSecretBox(settings: KeySettings, catalog: Catalog): Promise<SecretBox> {
  return new SecretBox(rootKey(await protectionOf(settings), await boxSalt(catalog)));
}

/** @throws when the keyring is protected by something else, with what to do */
async function openKeyService(settings: KeySettings, store: ObjectStore, now: () => Date): Promise<KeyService> {
  if (settings.kms !== undefined) {
    // Loaded where it is used: the client takes time to import.
    const { KmsKeys } = await import('../keys/kms-keys.ts');
    return new KmsKeys(settings.kms === 'aws' ? undefined : settings.kms, settings.region);
  }
  const path = dataPaths(settings.dataDir).keyring;
  return Keyring.open({ disk: new NodeDisk(), path, store, protection: await protectionOf(settings), now });
}

export async function openDataKeys(settings: KeySettings, catalog: Catalog, store: ObjectStore): Promise<DataKeys> {
  return new DataKeys(catalog, await openKeyService(settings, store, () => new Date()));
}
