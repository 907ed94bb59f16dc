import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, renameSync, writeFileSync } from 'node:fs';
import type { Catalog } from '../catalog/catalog.ts';
import type { AccessKeyRow } from '../catalog/schema.ts';
import type { AccountId } from '../types/ids.ts';

/** The first user of the default account. */
export const ADMINISTRATOR = 'admin';

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

/** @returns undefined for a key that does not exist */
export function findAccessKey(catalog: Catalog, accessKeyId: string): Promise<AccessKeyRow | undefined> {
  return catalog.selectFrom('access_keys').selectAll().where('access_key_id', '=', accessKeyId).executeTakeFirst();
}

/**
 * Sees to it that there is an administrator whose key stands in the credentials file (AWS's INI form, profile
 * `default`, mode 0600). Where the file is gone, it is written again.
 */
export async function ensureAdministrator(
  catalog: Catalog,
  accountId: AccountId,
  credentialsFile: string,
  region: string,
): Promise<AccessKeyRow> {
  let key = await catalog
    .selectFrom('access_keys')
    .selectAll()
    .where('account_id', '=', accountId)
    .where('user_name', '=', ADMINISTRATOR)
    .executeTakeFirst();
  if (key === undefined) {
    key = newKey(accountId, ADMINISTRATOR);
    await catalog.insertInto('access_keys').values(key).execute();
  }
  if (!existsSync(credentialsFile)) {
    const text = [
      '[default]',
      `aws_access_key_id = ${key.access_key_id}`,
      `aws_secret_access_key = ${key.secret_access_key}`,
      `region = ${region}`,
      '',
    ].join('\n');
    const temporary = `${credentialsFile}.new`;
    writeFileSync(temporary, text, { mode: 0o600 });
    renameSync(temporary, credentialsFile);
  }
  chmodSync(credentialsFile, 0o600);
  return key;
}

export function userArn(key: Pick<AccessKeyRow, 'account_id' | 'user_name'>): string {
  return `arn:aws:iam::${key.account_id}:user/${key.user_name}`;
}

function letters(count: number): string {
  return Array.from(randomBytes(count), (byte) => ALPHABET[byte % ALPHABET.length]).join('');
}

/** Makes a user with an access key; its account comes to be by that. @throws when the account has a user of that name */
export async function createUser(catalog: Catalog, accountId: AccountId, userName: string): Promise<AccessKeyRow> {
  const found = await catalog
    .selectFrom('access_keys')
    .select('user_name')
    .where('account_id', '=', accountId)
    .where('user_name', '=', userName)
    .executeTakeFirst();
  if (found !== undefined) throw new Error(`account ${accountId} has a user '${userName}' already`);
  const key = newKey(accountId, userName);
  await catalog.insertInto('access_keys').values(key).execute();
  return key;
}

function newKey(accountId: AccountId, userName: string): AccessKeyRow {
  return {
    access_key_id: `AKIA${letters(16)}`,
    secret_access_key: randomBytes(30).toString('base64'),
    account_id: accountId,
    user_name: userName,
  };
}
