import { createSecretKey, type KeyObject, randomBytes, randomUUID } from 'node:crypto';
import { z } from 'zod';
import { NONCE_BYTES, SealBrokenError, seal, unseal } from '../encryption/sealing.ts';
import { ObjectNotFoundError, type ObjectStore } from '../objects/object-store.ts';
import type { Disk } from '../volumes/disk.ts';
import { checkAlias, DEFAULT_ALIAS, KeyError, type KeyOwner, type KeyReport, type KeyService } from './key-service.ts';
import { type Protection, rootKey } from './root-key.ts';

const KEY_BYTES = 32;
/** The object that is the copy. */
export const KEYRING_KEY = 'keyring.json';
const CHECK = Buffer.from('cleancut keyring');

const SavedKey = z.strictObject({
  keyId: z.string(),
  accountId: z.string(),
  region: z.string(),
  description: z.string(),
  createdAt: z.string(),
  enabled: z.boolean(),
  aliases: z.array(z.string()),
  /** The key's material, oldest first, each sealed under the root key. */
  versions: z.array(z.string()).min(1),
});

/** `keyring.json`: nothing in it is of use without the root key. */
const Saved = z.strictObject({
  version: z.literal(1),
  protectedBy: z.enum(['file', 'passphrase']),
  salt: z.string(),
  /** A known text under the root key: tells a wrong passphrase or key file from a right one. */
  check: z.string(),
  keys: z.array(SavedKey),
});
type Saved = z.infer<typeof Saved>;
type SavedKey = z.infer<typeof SavedKey>;

export type KeyringOptions = {
  disk: Disk;
  path: string;
  /** Holds a copy, so that it outlives the disk. */
  store: ObjectStore;
  protection: Protection;
  now: () => Date;
};

/** KMS keys in a file, each sealed under a root key that lies elsewhere: in a key file, or in someone's head. */
export class Keyring implements KeyService {
  readonly #options: KeyringOptions;
  readonly #root: KeyObject;
  #saved: Saved;
  /** One change after the other. */
  #changing: Promise<unknown> = Promise.resolve();

  private constructor(options: KeyringOptions, root: KeyObject, saved: Saved) {
    this.#options = options;
    this.#root = root;
    this.#saved = saved;
  }

  /**
   * Opens the keyring, or makes an empty one (which is not saved before it holds a key).
   * @throws when the passphrase or key file is not the one that it is protected by
   */
  static open(options: KeyringOptions): Keyring {
    const { disk, path, protection } = options;
    if (!disk.exists(path)) {
      const salt = randomBytes(16);
      const root = rootKey(protection, salt);
      const check = sealText(root, CHECK, 'check');
      return new Keyring(options, root, {
        version: 1,
        protectedBy: protection.kind,
        salt: salt.toString('base64'),
        check,
        keys: [],
      });
    }
    const saved = parseKeyring(disk.readText(path), path);
    const root = rootKey(protection, Buffer.from(saved.salt, 'base64'));
    try {
      unsealText(root, saved.check, 'check');
    } catch {
      throw new Error(
        `the keyring ${path} is protected by another ${saved.protectedBy === 'file' ? 'key file (--key-file)' : 'passphrase (CLEANCUT_KEY_PASSPHRASE)'} than the ${protection.kind} that was given`,
      );
    }
    return new Keyring(options, root, saved);
  }

  /**
   * Brings a keyring back from the object store where the disk has none.
   * @returns what the disk has now: the store's keyring, none, or `another` than the store's
   */
  static async fetch(disk: Disk, path: string, store: ObjectStore): Promise<'fetched' | 'none' | 'another'> {
    const stored = await storedKeyring(store);
    if (stored === undefined) return 'none';
    if (!disk.exists(path)) await disk.replaceText(path, textOf(stored));
    return parseKeyring(disk.readText(path), path).salt === stored.salt ? 'fetched' : 'another';
  }

  async resolve(name: string, owner: KeyOwner): Promise<string> {
    const key = this.#find(name, owner);
    requireEnabled(key);
    return arnOf(key);
  }

  async defaultKey(owner: KeyOwner): Promise<string> {
    const found = this.#byAlias(DEFAULT_ALIAS, owner);
    if (found !== undefined) {
      requireEnabled(found);
      return arnOf(found);
    }
    return this.#change(async () => {
      const made = this.#byAlias(DEFAULT_ALIAS, owner);
      if (made !== undefined) return arnOf(made);
      const key = this.#newKey(owner, 'Default key that protects EBS volumes where no other is named', [DEFAULT_ALIAS]);
      await this.#save([...this.#saved.keys, key]);
      return arnOf(key);
    });
  }

  async newDataKey(keyArn: string, dataKeyId: string): Promise<{ bytes: Uint8Array; wrapped: string }> {
    const key = this.#byArn(keyArn);
    requireEnabled(key);
    const bytes = randomBytes(KEY_BYTES);
    const version = key.versions.length - 1;
    return { bytes, wrapped: `${version}.${sealText(this.#material(key, version), bytes, dataKeyId)}` };
  }

  async unwrap(keyArn: string, wrapped: string, dataKeyId: string): Promise<Uint8Array> {
    const key = this.#byArn(keyArn);
    requireEnabled(key);
    const [version, sealed] = wrapped.split('.', 2);
    try {
      return unsealText(this.#material(key, Number(version)), sealed ?? '', dataKeyId);
    } catch (error) {
      if (!(error instanceof SealBrokenError)) throw error;
      throw new KeyError('Unusable', `the key ${keyArn} cannot unwrap the data key ${dataKeyId}`);
    }
  }

  async create(owner: KeyOwner, description: string, alias: string | undefined): Promise<KeyReport> {
    const aliases = alias === undefined ? [] : [checkAlias(alias)];
    return this.#change(async () => {
      for (const name of aliases) {
        if (this.#byAlias(name, owner) !== undefined) throw new KeyError('Taken', `another key has the alias ${name}`);
      }
      const key = this.#newKey(owner, description, aliases);
      await this.#save([...this.#saved.keys, key]);
      return reportOf(key);
    });
  }

  async list(owner: KeyOwner): Promise<KeyReport[]> {
    return this.#keysOf(owner).map(reportOf);
  }

  async setAlias(name: string, owner: KeyOwner, alias: string): Promise<KeyReport> {
    checkAlias(alias);
    const key = this.#find(name, owner);
    return this.#update(key.keyId, (saved) => ({ ...saved, aliases: [...saved.aliases, alias] }), owner, alias);
  }

  async rotate(name: string, owner: KeyOwner): Promise<KeyReport> {
    const key = this.#find(name, owner);
    requireEnabled(key);
    return this.#update(key.keyId, (saved) => {
      const version = saved.versions.length;
      const material = sealText(this.#root, randomBytes(KEY_BYTES), `${saved.keyId} ${version}`);
      return { ...saved, versions: [...saved.versions, material] };
    });
  }

  async setEnabled(name: string, owner: KeyOwner, enabled: boolean): Promise<KeyReport> {
    const key = this.#find(name, owner);
    return this.#update(key.keyId, (saved) => ({ ...saved, enabled }));
  }

  /** @param moved an alias that no other key of the owner is to keep */
  #update(keyId: string, change: (key: SavedKey) => SavedKey, owner?: KeyOwner, moved?: string): Promise<KeyReport> {
    return this.#change(async () => {
      const keys = this.#saved.keys.map((key) => {
        const without =
          moved !== undefined && key.accountId === owner?.accountId && key.region === owner.region
            ? { ...key, aliases: key.aliases.filter((alias) => alias !== moved) }
            : key;
        return key.keyId === keyId ? change(without) : without;
      });
      await this.#save(keys);
      return reportOf(this.#byId(keyId));
    });
  }

  #newKey(owner: KeyOwner, description: string, aliases: string[]): SavedKey {
    const keyId = randomUUID();
    return {
      keyId,
      accountId: owner.accountId,
      region: owner.region,
      description,
      createdAt: this.#options.now().toISOString(),
      enabled: true,
      aliases,
      versions: [sealText(this.#root, randomBytes(KEY_BYTES), `${keyId} 0`)],
    };
  }

  async #save(keys: SavedKey[]): Promise<void> {
    const saved = { ...this.#saved, keys };
    const text = textOf(saved);
    // The store first: a key that has wrapped anything must outlive this disk. Killed between the two, the disk has the
    // older one, and the new key was never used.
    await this.#options.store.put(KEYRING_KEY, [Buffer.from(text)]);
    await this.#options.disk.replaceText(this.#options.path, text);
    this.#saved = saved;
  }

  /**
   * The copy in the store may have more keys than this disk: one that was put back from an older state, say. None of them
   * is to be overwritten; there is no other copy.
   * @throws KeyError Unusable, where it is another keyring: one that this disk has lost, or another server's
   */
  async #catchUp(): Promise<void> {
    const stored = await storedKeyring(this.#options.store);
    if (stored === undefined) return;
    if (stored.salt !== this.#saved.salt) {
      throw new KeyError(
        'Unusable',
        `The object store has another keyring than this server; a new key would overwrite it. If it is needed, bring it back with 'cleancut rebuild'; if not, move its object '${KEYRING_KEY}' away.`,
      );
    }
    const own = this.#saved.keys;
    const more = stored.keys.filter((key) => !own.some(({ keyId }) => keyId === key.keyId));
    const newest = own.map((key) => {
      const other = stored.keys.find(({ keyId }) => keyId === key.keyId);
      return other !== undefined && other.versions.length > key.versions.length ? other : key;
    });
    this.#saved = { ...this.#saved, keys: [...newest, ...more] };
  }

  #change<Answer>(work: () => Promise<Answer>): Promise<Answer> {
    const changed = this.#changing.then(() => this.#catchUp()).then(work);
    this.#changing = changed.catch(() => undefined);
    return changed;
  }

  #material(key: SavedKey, version: number): KeyObject {
    const sealed = key.versions[version];
    if (sealed === undefined) throw new KeyError('Unusable', `the key ${arnOf(key)} has no version ${version}`);
    return createSecretKey(unsealText(this.#root, sealed, `${key.keyId} ${version}`));
  }

  #keysOf(owner: KeyOwner): SavedKey[] {
    return this.#saved.keys.filter((key) => key.accountId === owner.accountId && key.region === owner.region);
  }

  #byAlias(alias: string, owner: KeyOwner): SavedKey | undefined {
    return this.#keysOf(owner).find((key) => key.aliases.includes(alias));
  }

  #byArn(arn: string): SavedKey {
    const key = this.#saved.keys.find((candidate) => arnOf(candidate) === arn);
    if (key === undefined) throw new KeyError('NotFound', `the keyring has no key ${arn}`);
    return key;
  }

  #byId(keyId: string): SavedKey {
    const key = this.#saved.keys.find((candidate) => candidate.keyId === keyId);
    if (key === undefined) throw new KeyError('NotFound', `the keyring has no key ${keyId}`);
    return key;
  }

  #find(name: string, owner: KeyOwner): SavedKey {
    const alias = /^(?:arn:aws:kms:[^:]+:[^:]+:)?(alias\/.+)$/.exec(name);
    const key = this.#keysOf(owner).find((candidate) =>
      alias === null
        ? candidate.keyId === name || arnOf(candidate) === name
        : candidate.aliases.includes(alias[1]) && (name === alias[1] || name === aliasArn(candidate, alias[1])),
    );
    if (key === undefined)
      throw new KeyError('NotFound', `account ${owner.accountId} has no key '${name}' in ${owner.region}`);
    return key;
  }
}

function textOf(keyring: Saved): string {
  return `${JSON.stringify(keyring, undefined, 2)}\n`;
}

/** @throws when it is none */
function parseKeyring(text: string, where: string): Saved {
  try {
    return Saved.parse(JSON.parse(text));
  } catch (error) {
    throw new Error(`${where} is damaged, or no keyring: ${(error as Error).message}`);
  }
}

async function storedKeyring(store: ObjectStore): Promise<Saved | undefined> {
  try {
    return parseKeyring((await store.get(KEYRING_KEY)).toString('utf8'), `${KEYRING_KEY} in ${store.url}`);
  } catch (error) {
    if (error instanceof ObjectNotFoundError) return undefined;
    throw error;
  }
}

function requireEnabled(key: SavedKey): void {
  if (!key.enabled) throw new KeyError('Disabled', `the key ${arnOf(key)} is disabled`);
}

function arnOf(key: SavedKey): string {
  return `arn:aws:kms:${key.region}:${key.accountId}:key/${key.keyId}`;
}

function aliasArn(key: SavedKey, alias: string): string {
  return `arn:aws:kms:${key.region}:${key.accountId}:${alias}`;
}

function reportOf(key: SavedKey): KeyReport {
  const { keyId, aliases, description, enabled, createdAt } = key;
  return { keyId, arn: arnOf(key), aliases, description, enabled, createdAt, versions: key.versions.length };
}

function sealText(key: KeyObject, plain: Uint8Array, purpose: string): string {
  const nonce = randomBytes(NONCE_BYTES);
  return Buffer.concat([nonce, seal(key, nonce, plain, Buffer.from(purpose))]).toString('base64');
}

/** @throws SealBrokenError */
function unsealText(key: KeyObject, text: string, purpose: string): Buffer {
  const bytes = Buffer.from(text, 'base64');
  return unseal(key, bytes.subarray(0, NONCE_BYTES), bytes.subarray(NONCE_BYTES), Buffer.from(purpose));
}
