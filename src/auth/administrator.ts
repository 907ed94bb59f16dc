import { chmodSync, existsSync, renameSync, writeFileSync } from 'node:fs';
import type { AccountId } from '../types/ids.ts';
import { ADMINISTRATOR, type NewKey, type Users } from './users.ts';

/**
 * Sees to it that there is an administrator whose key stands in the credentials file (AWS's INI form, profile `default`,
 * mode 0600). Where the file is gone, the administrator gets a new key: secrets cannot be shown again.
 * @returns the other users who cannot sign in with the keys that they have
 * @throws when the administrator could not, with what to do: everyone would be told that his key is wrong
 */
export async function ensureAdministrator(
  users: Users,
  accountId: AccountId,
  credentialsFile: string,
  region: string,
): Promise<string[]> {
  const known = (await users.list(accountId)).some((user) => user.userName === ADMINISTRATOR);
  if (!known) {
    writeCredentials(credentialsFile, await users.create(accountId, ADMINISTRATOR, undefined), region);
  } else if (!existsSync(credentialsFile)) {
    writeCredentials(credentialsFile, await users.rotate(accountId, ADMINISTRATOR), region);
  }
  chmodSync(credentialsFile, 0o600);
  const shutOut = await users.shutOut();
  if (shutOut.some((user) => user.accountId === accountId && user.userName === ADMINISTRATOR)) {
    throw new Error(
      `users' secrets were sealed under another key file (--key-file, by default DIR/keyring.key) or passphrase (CLEANCUT_KEY_PASSPHRASE) than this one: put it back, or name it. If it is lost, so is what is encrypted, and nothing else: move ${credentialsFile} away, and the administrator gets a new key at the next start`,
    );
  }
  return shutOut.map((user) => `${user.userName} of ${user.accountId}`);
}

export function writeCredentials(credentialsFile: string, key: NewKey, region: string): void {
  const text = [
    '[default]',
    `aws_access_key_id = ${key.accessKeyId}`,
    `aws_secret_access_key = ${key.secretAccessKey}`,
    `region = ${region}`,
    '',
  ].join('\n');
  const temporary = `${credentialsFile}.new`;
  // Synced before the rename: after a power loss an empty file would be taken for one that holds the key.
  writeFileSync(temporary, text, { mode: 0o600, flush: true });
  renameSync(temporary, credentialsFile);
}
