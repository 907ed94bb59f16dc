import { randomBytes } from 'node:crypto';
import type { Catalog } from '../catalog/catalog.ts';
import type { AccountId } from '../types/ids.ts';
import { DAY_MILLISECONDS } from '../types/units.ts';
import { ADMINISTRATOR_ACCESS, type Policy, parsePolicy } from './policy.ts';
import type { SecretBox } from './secret-box.ts';

/** The first user of the default account. */
export const ADMINISTRATOR = 'admin';

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
const PARSED_POLICIES = 1000;
const ACCESS_POLICY = 'AdministratorAccess';

/** An access key as its owner gets it, once. */
export type NewKey = { accessKeyId: string; secretAccessKey: string };

/** Who a key belongs to, and what it takes to check a signature by it. */
export type Identity = {
  accountId: AccountId;
  userName: string;
  accessKeyId: string;
  secretAccessKey: string;
  /** Of temporary credentials: what must come with each request, and until when. */
  session: { token: string; expiresAt: Date } | undefined;
};

export type UserReport = {
  accountId: string;
  userName: string;
  createdAt: string;
  keys: { accessKeyId: string; enabled: boolean; createdAt: string }[];
  policies: string[];
};

export class UserError extends Error {
  override name = 'UserError';
  readonly reason: 'exists' | 'missing';

  constructor(reason: UserError['reason'], message: string) {
    super(message);
    this.reason = reason;
  }
}

/** Accounts' users, their access keys and policies. An account comes to be by its first user. */
export class Users {
  readonly #catalog: Catalog;
  readonly #box: SecretBox;
  readonly #now: () => Date;
  readonly #parsed = new Map<string, Policy>();

  constructor(catalog: Catalog, box: SecretBox, now: () => Date) {
    this.#catalog = catalog;
    this.#box = box;
    this.#now = now;
  }

  /** @returns undefined for a key that does not exist, is disabled, or whose user is gone */
  async identify(accessKeyId: string): Promise<Identity | undefined> {
    const key = await this.#catalog
      .selectFrom('access_keys')
      .selectAll()
      .where('access_key_id', '=', accessKeyId)
      .where('enabled', '=', 1)
      .executeTakeFirst();
    if (key !== undefined) {
      const secretAccessKey = this.#box.open(key.secret_access_key, accessKeyId);
      if (secretAccessKey === undefined) return undefined;
      const { account_id, user_name } = key;
      return { accountId: account_id, userName: user_name, accessKeyId, secretAccessKey, session: undefined };
    }
    const session = await this.#catalog
      .selectFrom('sessions')
      .innerJoin('access_keys', 'access_keys.access_key_id', 'sessions.parent_key_id')
      .selectAll('sessions')
      .where('sessions.access_key_id', '=', accessKeyId)
      // With the key that asked for it, a session ends.
      .where('access_keys.enabled', '=', 1)
      .executeTakeFirst();
    if (session === undefined) return undefined;
    const secretAccessKey = this.#box.open(session.secret_access_key, accessKeyId);
    const token = this.#box.open(session.session_token, accessKeyId);
    if (secretAccessKey === undefined || token === undefined) return undefined;
    return {
      accountId: session.account_id,
      userName: session.user_name,
      accessKeyId,
      secretAccessKey,
      session: { token, expiresAt: new Date(session.expires_at) },
    };
  }

  /** What a user may do. */
  async policiesOf(accountId: AccountId, userName: string): Promise<Policy[]> {
    const rows = await this.#catalog
      .selectFrom('user_policies')
      .select('document')
      .where('account_id', '=', accountId)
      .where('user_name', '=', userName)
      .execute();
    return rows.map(({ document }) => this.#parse(document));
  }

  /**
   * Makes a user with a key.
   * @param policy a document (see parsePolicy); undefined makes an administrator of the account
   * @throws UserError exists; PolicyError
   */
  async create(accountId: AccountId, userName: string, policy: string | undefined): Promise<NewKey> {
    const document = policy ?? JSON.stringify(ADMINISTRATOR_ACCESS);
    parsePolicy(document);
    const key = this.#newKey('AKIA');
    await this.#catalog.transaction().execute(async (transaction) => {
      const created_at = this.#now().toISOString();
      const made = await transaction
        .insertInto('users')
        .values({ account_id: accountId, user_name: userName, created_at })
        .onConflict((conflict) => conflict.doNothing())
        .executeTakeFirst();
      if (Number(made.numInsertedOrUpdatedRows ?? 0) === 0) {
        throw new UserError('exists', `account ${accountId} has a user '${userName}' already`);
      }
      const policy_name = policy === undefined ? ACCESS_POLICY : 'inline';
      const row = { account_id: accountId, user_name: userName, policy_name, document };
      await transaction.insertInto('user_policies').values(row).execute();
      await this.#insertKey(transaction, accountId, userName, key);
    });
    return key;
  }

  async list(accountId: AccountId | undefined): Promise<UserReport[]> {
    let query = this.#catalog.selectFrom('users').selectAll().orderBy('account_id').orderBy('user_name');
    if (accountId !== undefined) query = query.where('account_id', '=', accountId);
    const users = await query.execute();
    const keys = await this.#catalog.selectFrom('access_keys').selectAll().orderBy('created_at').execute();
    const policies = await this.#catalog.selectFrom('user_policies').selectAll().orderBy('policy_name').execute();
    return users.map(({ account_id, user_name, created_at }) => {
      const own = (row: { account_id: string; user_name: string }): boolean =>
        row.account_id === account_id && row.user_name === user_name;
      return {
        accountId: account_id,
        userName: user_name,
        createdAt: created_at,
        keys: keys.filter(own).map((key) => ({
          accessKeyId: key.access_key_id,
          enabled: key.enabled === 1,
          createdAt: key.created_at,
        })),
        policies: policies.filter(own).map((policy) => policy.policy_name),
      };
    });
  }

  /** A new key for a user; those before end with the same step, and the sessions made by them. @throws UserError missing */
  async rotate(accountId: AccountId, userName: string): Promise<NewKey> {
    await this.#require(accountId, userName);
    const key = this.#newKey('AKIA');
    await this.#catalog.transaction().execute(async (transaction) => {
      await transaction
        .deleteFrom('access_keys')
        .where('account_id', '=', accountId)
        .where('user_name', '=', userName)
        .execute();
      await this.#insertKey(transaction, accountId, userName, key);
    });
    return key;
  }

  /** @throws UserError missing */
  async setEnabled(accountId: AccountId, userName: string, enabled: boolean): Promise<void> {
    await this.#require(accountId, userName);
    await this.#catalog
      .updateTable('access_keys')
      .set({ enabled: enabled ? 1 : 0 })
      .where('account_id', '=', accountId)
      .where('user_name', '=', userName)
      .execute();
  }

  /** @throws UserError missing */
  async delete(accountId: AccountId, userName: string): Promise<void> {
    await this.#require(accountId, userName);
    await this.#catalog.transaction().execute(async (transaction) => {
      for (const table of ['access_keys', 'user_policies', 'users'] as const) {
        await transaction
          .deleteFrom(table)
          .where('account_id', '=', accountId)
          .where('user_name', '=', userName)
          .execute();
      }
    });
  }

  /** Attaches a policy, or takes one away (`document` undefined). @throws UserError missing; PolicyError */
  async setPolicy(
    accountId: AccountId,
    userName: string,
    policyName: string,
    document: string | undefined,
  ): Promise<void> {
    await this.#require(accountId, userName);
    if (document === undefined) {
      const removed = await this.#catalog
        .deleteFrom('user_policies')
        .where('account_id', '=', accountId)
        .where('user_name', '=', userName)
        .where('policy_name', '=', policyName)
        .executeTakeFirst();
      if (removed.numDeletedRows === 0n) throw new UserError('missing', `'${userName}' has no policy '${policyName}'`);
      return;
    }
    parsePolicy(document);
    await this.#catalog
      .insertInto('user_policies')
      .values({ account_id: accountId, user_name: userName, policy_name: policyName, document })
      .onConflict((conflict) => conflict.columns(['account_id', 'user_name', 'policy_name']).doUpdateSet({ document }))
      .execute();
  }

  /** Temporary credentials of a user. */
  async newSession(identity: Identity, seconds: number): Promise<NewKey & { sessionToken: string; expiresAt: Date }> {
    const key = this.#newKey('ASIA');
    const sessionToken = randomBytes(96).toString('base64');
    const expiresAt = new Date(this.#now().getTime() + seconds * 1000);
    await this.#catalog
      .insertInto('sessions')
      .values({
        access_key_id: key.accessKeyId,
        parent_key_id: identity.accessKeyId,
        account_id: identity.accountId,
        user_name: identity.userName,
        secret_access_key: this.#box.seal(key.secretAccessKey, key.accessKeyId),
        session_token: this.#box.seal(sessionToken, key.accessKeyId),
        expires_at: expiresAt.toISOString(),
      })
      .execute();
    return { ...key, sessionToken, expiresAt };
  }

  async forgetExpiredSessions(): Promise<void> {
    // A day longer than they live: until then the answer is that they have expired.
    const before = new Date(this.#now().getTime() - DAY_MILLISECONDS).toISOString();
    await this.#catalog.deleteFrom('sessions').where('expires_at', '<', before).execute();
  }

  /** Those who have a key that nobody can sign with any more: its secret was sealed under another root key. */
  async shutOut(): Promise<{ accountId: AccountId; userName: string }[]> {
    const rows = await this.#catalog.selectFrom('access_keys').selectAll().where('sealed', '=', 1).execute();
    return rows
      .filter((key) => this.#box.open(key.secret_access_key, key.access_key_id) === undefined)
      .map((key) => ({ accountId: key.account_id, userName: key.user_name }));
  }

  /** Secrets that an earlier version kept as they are. */
  async sealPlainSecrets(): Promise<void> {
    const rows = await this.#catalog.selectFrom('access_keys').selectAll().where('sealed', '=', 0).execute();
    for (const { access_key_id, secret_access_key } of rows) {
      await this.#catalog
        .updateTable('access_keys')
        .set({ secret_access_key: this.#box.seal(secret_access_key, access_key_id), sealed: 1 })
        .where('access_key_id', '=', access_key_id)
        .execute();
    }
  }

  /** Policies are asked about with every request, and hardly ever change. */
  #parse(document: string): Policy {
    let policy = this.#parsed.get(document);
    if (policy === undefined) {
      policy = parsePolicy(document);
      if (this.#parsed.size >= PARSED_POLICIES) this.#parsed.clear();
      this.#parsed.set(document, policy);
    }
    return policy;
  }

  async #insertKey(catalog: Catalog, accountId: AccountId, userName: string, key: NewKey): Promise<void> {
    await catalog
      .insertInto('access_keys')
      .values({
        access_key_id: key.accessKeyId,
        secret_access_key: this.#box.seal(key.secretAccessKey, key.accessKeyId),
        account_id: accountId,
        user_name: userName,
        created_at: this.#now().toISOString(),
        enabled: 1,
        sealed: 1,
      })
      .execute();
  }

  async #require(accountId: AccountId, userName: string): Promise<void> {
    const user = await this.#catalog
      .selectFrom('users')
      .select('user_name')
      .where('account_id', '=', accountId)
      .where('user_name', '=', userName)
      .executeTakeFirst();
    if (user === undefined) throw new UserError('missing', `account ${accountId} has no user '${userName}'`);
  }

  #newKey(prefix: 'AKIA' | 'ASIA'): NewKey {
    const letters = Array.from(randomBytes(16), (byte) => ALPHABET[byte % ALPHABET.length]).join('');
    return { accessKeyId: `${prefix}${letters}`, secretAccessKey: randomBytes(30).toString('base64') };
  }
}

export function userArn(accountId: string, userName: string): string {
  return `arn:aws:iam::${accountId}:user/${userName}`;
}
