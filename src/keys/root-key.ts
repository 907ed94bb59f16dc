import { createSecretKey, hkdfSync, type KeyObject, randomBytes, scryptSync } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import type { Disk } from '../volumes/disk.ts';

const ROOT_KEY_BYTES = 32;
const LEAST_FILE_BYTES = 32;
/** Some 128 MiB and half a second: what guessing one passphrase costs. */
const SCRYPT = { N: 2 ** 17, r: 8, p: 1, maxmem: 256 * 1024 * 1024 };

/** What a keyring is protected by. */
export type Protection = { kind: 'file'; path: string } | { kind: 'passphrase'; passphrase: string };

/** The key that protects a keyring. @param salt kept beside the keyring @throws with what to do */
export function rootKey(protection: Protection, salt: Buffer): KeyObject {
  switch (protection.kind) {
    case 'passphrase':
      return createSecretKey(scryptSync(protection.passphrase, salt, ROOT_KEY_BYTES, SCRYPT));
    case 'file': {
      const mode = modeOf(protection.path) & 0o077;
      if (mode !== 0) throw new Error(`${protection.path} can be read by others: chmod 600 it`);
      const secret = readFileSync(protection.path);
      if (secret.length < LEAST_FILE_BYTES)
        throw new Error(`${protection.path} holds ${secret.length} bytes; a key file needs ${LEAST_FILE_BYTES}`);
      return createSecretKey(Buffer.from(hkdfSync('sha256', secret, salt, 'cleancut keyring', ROOT_KEY_BYTES)));
    }
    default:
      return protection satisfies never;
  }
}

function modeOf(path: string): number {
  try {
    return statSync(path).mode;
  } catch (error) {
    throw new Error(
      `the key file ${path} (--key-file) is not there: ${(error as Error).message}; a new one, for a new server, is made with (umask 077; head -c 48 /dev/urandom | base64 > FILE)`,
    );
  }
}

/** Makes a key file of random bytes, unless there is one. Not to be asked twice at once: each would make its own. */
export async function ensureKeyFile(disk: Disk, path: string): Promise<void> {
  if (!disk.exists(path)) await disk.replaceText(path, `${randomBytes(48).toString('base64')}\n`);
}
