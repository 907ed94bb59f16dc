import { readFileSync } from 'node:fs';
import type { NewUser } from '../admin/users.ts';
import { writeCredentials } from '../auth/administrator.ts';
import { readCredentials } from '../auth/credentials-file.ts';
import type { UserReport } from '../auth/users.ts';
import { dataPaths } from '../server/data-directory.ts';
import { chosenDataDir, connectToServer, type DataDirFlag, runningServer } from './connection.ts';
import { print } from './output.ts';

type Flags = DataDirFlag & { account?: string; json?: boolean };

const DEFAULT_ACCOUNT = '000000000001';

export async function createUser(userName: string, flags: Flags & { policy?: string }): Promise<void> {
  const policy = flags.policy === undefined ? undefined : readFileSync(flags.policy, 'utf8');
  showKey(flags, await ask<NewUser>(flags, 'create-user', { userName, policy }));
}

export async function listUsers(flags: Flags): Promise<void> {
  const input = flags.account === undefined ? {} : { accountId: flags.account };
  const report = await connectToServer(flags).ask<{ users: UserReport[] }>('list-users', input);
  const rows = report.users.map((user) => [
    user.accountId,
    user.userName,
    user.keys.map((key) => key.accessKeyId).join('\n'),
    user.keys.map((key) => (key.enabled ? 'enabled' : 'disabled')).join('\n'),
    user.policies.join('\n'),
  ]);
  print(flags.json, report, ['account', 'user', 'access keys', 'state', 'policies'], rows);
}

/** A new key in place of the old ones; the credentials file follows where it held one of those. */
export async function rotateUser(userName: string, flags: Flags): Promise<void> {
  const { users } = await connectToServer(flags).ask<{ users: UserReport[] }>('list-users');
  const accountId = flags.account ?? DEFAULT_ACCOUNT;
  const user = users.find((each) => each.accountId === accountId && each.userName === userName);
  const dataDir = chosenDataDir(flags);
  const file = dataPaths(dataDir).credentials;
  const own = user?.keys.some((key) => key.accessKeyId === readCredentials(file).accessKeyId) === true;
  const made = await ask<NewUser>(flags, 'rotate-user', { userName });
  if (own) writeCredentials(file, made, runningServer(dataDir).region);
  showKey(flags, made);
}

export async function enableUser(userName: string, enabled: boolean, flags: Flags): Promise<void> {
  await ask(flags, 'enable-user', { userName, enabled });
  print(flags.json, { userName, enabled }, ['user', 'state'], [[userName, enabled ? 'enabled' : 'disabled']]);
}

export async function deleteUser(userName: string, flags: Flags): Promise<void> {
  await ask(flags, 'delete-user', { userName });
  print(flags.json, { userName, deleted: true }, ['user', 'state'], [[userName, 'deleted']]);
}

/** @param file the policy document; undefined takes the policy away */
export async function setPolicy(
  userName: string,
  policyName: string,
  file: string | undefined,
  flags: Flags,
): Promise<void> {
  const policy = file === undefined ? undefined : readFileSync(file, 'utf8');
  await ask(flags, 'set-user-policy', { userName, policyName, policy });
  const state = policy === undefined ? 'taken away' : 'attached';
  print(flags.json, { userName, policyName, state }, ['user', 'policy', 'state'], [[userName, policyName, state]]);
}

function ask<Answer>(flags: Flags, verb: string, input: object): Promise<Answer> {
  return connectToServer(flags).ask<Answer>(verb, { accountId: flags.account ?? DEFAULT_ACCOUNT, ...input });
}

function showKey(flags: Flags, user: NewUser): void {
  const { accountId, userName, accessKeyId, secretAccessKey } = user;
  print(
    flags.json,
    user,
    ['account', 'user', 'access key', 'secret (shown this once)'],
    [[accountId, userName, accessKeyId, secretAccessKey]],
  );
}
