import { Call, type Caller, type Services } from '../api/operation.ts';
import { ruleErrors } from '../api/recycle-bin/rule-errors.ts';
import type { RuleOperation } from '../api/recycle-bin/rule-operation.ts';
import { listTagsForResource, tagResource, untagResource } from '../api/recycle-bin/rule-tags.ts';
import {
  createRule,
  deleteRule,
  getRule,
  listRules,
  lockRule,
  unlockRule,
  updateRule,
} from '../api/recycle-bin/rules.ts';
import type { ApiError } from '../wire/api-error.ts';
import type { HttpAnswer, HttpRequest } from '../wire/http-server.ts';
import { matchRoute, namedRoute, newRoute, parseJson, toJson } from '../wire/rest-json.ts';
import { jsonError } from './json-errors.ts';

/** All ten. */
export const RECYCLE_BIN_OPERATIONS: Readonly<Record<string, RuleOperation>> = {
  CreateRule: createRule,
  DeleteRule: deleteRule,
  GetRule: getRule,
  ListRules: listRules,
  ListTagsForResource: listTagsForResource,
  LockRule: lockRule,
  TagResource: tagResource,
  UnlockRule: unlockRule,
  UntagResource: untagResource,
  UpdateRule: updateRule,
};

/** Labels are named as the members that they are. */
const ROUTES = [
  newRoute('CreateRule', 'POST', '/rules', 201),
  newRoute('DeleteRule', 'DELETE', '/rules/{Identifier}', 204),
  newRoute('GetRule', 'GET', '/rules/{Identifier}', 200),
  newRoute('ListRules', 'POST', '/list-rules', 200),
  newRoute('ListTagsForResource', 'GET', '/tags/{ResourceArn}', 200),
  newRoute('LockRule', 'PATCH', '/rules/{Identifier}/lock', 200),
  newRoute('TagResource', 'POST', '/tags/{ResourceArn}', 201),
  newRoute('UnlockRule', 'PATCH', '/rules/{Identifier}/unlock', 200),
  newRoute('UntagResource', 'DELETE', '/tags/{ResourceArn}', 204),
  newRoute('UpdateRule', 'PATCH', '/rules/{Identifier}', 200),
];

/** The rules by which deleted snapshots are kept for a while: the API of AWS's Recycle Bin, REST and JSON. */
export class RecycleBinEndpoint {
  readonly #services: Services;

  constructor(services: Services) {
    this.#services = services;
  }

  async answer(request: HttpRequest, caller: Caller, requestId: string): Promise<HttpAnswer> {
    const route = matchRoute(ROUTES, request.method, request.path);
    if (route === undefined) throw ruleErrors.notBuilt(request.path);
    const { name, status } = route.operation;
    const tagKeys = request.query.getAll('tagKeys');
    const input = {
      ...parseJson(request.body),
      ...(name === 'UntagResource' ? { TagKeys: tagKeys } : {}),
      ...Object.fromEntries(route.labels),
    };
    const call = new Call(this.#services, caller, { requestId, action: `rbin:${name}`, dryRun: false });
    const output = await RECYCLE_BIN_OPERATIONS[name](input, call);
    call.assertPermitted();
    const body = status === 204 ? '' : JSON.stringify(toJson(output));
    return { status, contentType: 'application/json', body };
  }

  routeOf(request: HttpRequest): ReturnType<typeof namedRoute> {
    return namedRoute(ROUTES, request);
  }

  error(error: ApiError, requestId: string): HttpAnswer {
    return jsonError(error, requestId);
  }
}
