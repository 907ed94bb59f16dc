import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DataKey } from '../encryption/data-key.ts';
import type { KeyService } from '../keys/key-service.ts';
import { Keyring } from '../keys/keyring.ts';
import type { Protection } from '../keys/root-key.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import { dataPaths } from '../server/data-directory.ts';
import type { SnapshotRecord } from '../snapshots/snapshot-record.ts';
import { NodeDisk } from '../volumes/node-disk.ts';
import { chosenDataDir, type DataDirFlag, runningServer } from './connection.ts';

export type KeyFlags = DataDirFlag & { keyFile?: string };

/** Opens the keys of encrypted snapshots as they are met; the keeper of keys is asked for when the first one is. */
export class SnapshotKeys {
  readonly #flags: KeyFlags;
  readonly #store: ObjectStore;
  #service: Promise<KeyService> | undefined;

  constructor(flags: KeyFlags, store: ObjectStore) {
    this.#flags = flags;
    this.#store = store;
  }

  /** @throws with what to do when the key cannot be had */
  async keyOf({ encryption }: Pick<SnapshotRecord, 'encryption'>): Promise<DataKey | undefined> {
    if (encryption === undefined) return undefined;
    this.#service ??= openKeys(this.#flags, this.#store);
    const { kmsKeyArn, wrapped, dataKeyId } = encryption;
    return new DataKey(await (await this.#service).unwrap(kmsKeyArn, wrapped, dataKeyId));
  }
}

/** The keys of the data directory, or those whose copy is in the object store. */
async function openKeys(flags: KeyFlags, store: ObjectStore): Promise<KeyService> {
  const dataDir = chosenDataDir(flags);
  const server = existsSync(dataPaths(dataDir).running) ? runningServer(dataDir) : undefined;
  const kms = process.env.CLEANCUT_KMS ?? server?.kms;
  if (kms !== undefined) {
    const { KmsKeys } = await import('../keys/kms-keys.ts');
    return new KmsKeys(kms === 'aws' ? undefined : kms, process.env.CLEANCUT_REGION ?? server?.region ?? 'us-east-1');
  }
  const protection = chosenProtection(flags.keyFile ?? process.env.CLEANCUT_KEY_FILE ?? server?.keyFile, dataDir);
  const disk = new NodeDisk();
  const now = (): Date => new Date();
  const own = dataPaths(dataDir).keyring;
  if (disk.exists(own)) return Keyring.open({ disk, path: own, store, protection, now });
  const scratch = mkdtempSync(path.join(tmpdir(), 'cleancut-keyring-'));
  try {
    const copy = path.join(scratch, 'keyring.json');
    if ((await Keyring.fetch(disk, copy, store)) === 'none')
      throw new Error(`neither ${own} nor ${store.url} holds a keyring`);
    return Keyring.open({ disk, path: copy, store, protection, now });
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

function chosenProtection(keyFile: string | undefined, dataDir: string): Protection {
  const passphrase = process.env.CLEANCUT_KEY_PASSPHRASE;
  if (passphrase !== undefined) return { kind: 'passphrase', passphrase };
  const file = keyFile ?? dataPaths(dataDir).keyFile;
  if (existsSync(file)) return { kind: 'file', path: file };
  throw new Error(
    `the snapshot is encrypted, and ${file} is not there: name the key file with --key-file, or give the passphrase in CLEANCUT_KEY_PASSPHRASE`,
  );
}
