import { Call, type Caller, type Services } from '../api/operation.ts';
import { type ApiError, wireErrors } from '../wire/api-error.ts';
import type { HttpAnswer, HttpRequest } from '../wire/http-server.ts';
import { collect } from './collect.ts';
import { forgetDamaged } from './forget-damaged.ts';
import { beginImport, failImport, finishImport, importProgress } from './import-snapshot.ts';
import { aliasKey, createKey, enableKey, listKeys, rotateKey } from './keys.ts';
import { restoreSet } from './restore-set.ts';
import { sets } from './sets.ts';
import { status } from './status.ts';
import { createUser, deleteUser, enableUser, listUsers, rotateUser, setUserPolicy } from './users.ts';
import type { Verb } from './verb.ts';
import { volumes } from './volumes.ts';

const VERBS: Readonly<Record<string, Verb>> = {
  'alias-key': aliasKey,
  'begin-import': beginImport,
  collect,
  'create-key': createKey,
  'create-user': createUser,
  'delete-user': deleteUser,
  'enable-key': enableKey,
  'enable-user': enableUser,
  'fail-import': failImport,
  'finish-import': finishImport,
  'forget-damaged': forgetDamaged,
  'import-progress': importProgress,
  'list-keys': listKeys,
  'list-users': listUsers,
  'restore-set': restoreSet,
  'rotate-key': rotateKey,
  'rotate-user': rotateUser,
  'set-user-policy': setUserPolicy,
  sets,
  status,
  volumes,
};

/**
 * What the CLI asks of the server and EC2's API has no words for: sets, live figures, imports. `POST /cleancut/VERB`,
 * JSON in and out, signed like everything else (service name `cleancut`).
 */
export class AdminEndpoint {
  readonly #services: Services;

  constructor(services: Services) {
    this.#services = services;
  }

  async answer(request: HttpRequest, caller: Caller, requestId: string): Promise<HttpAnswer> {
    const name = /^\/cleancut\/([a-z-]+)$/.exec(request.path)?.[1] ?? '';
    if (!Object.hasOwn(VERBS, name) || request.method !== 'POST') throw wireErrors.notFound(request.path);
    const action = `cleancut:${name.replace(/(?:^|-)([a-z])/g, (_, letter: string) => letter.toUpperCase())}`;
    const call = new Call(this.#services, caller, { requestId, action, dryRun: false });
    const answer = await VERBS[name](parseBody(request.body), call);
    call.assertPermitted();
    return { status: 200, contentType: 'application/json', body: JSON.stringify(answer) };
  }

  error(error: ApiError, requestId: string): HttpAnswer {
    const body = JSON.stringify({ code: error.code, message: error.message, requestId });
    return { status: error.status, contentType: 'application/json', body };
  }
}

function parseBody(body: Buffer): unknown {
  if (body.length === 0) return {};
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    throw wireErrors.invalidValue('body', `${body.length} bytes`, 'It is not JSON.');
  }
}
