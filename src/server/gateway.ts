import { randomUUID } from 'node:crypto';
import type { AdminEndpoint } from '../admin/admin-endpoint.ts';
import { errors } from '../api/errors.ts';
import type { Caller, Services } from '../api/operation.ts';
import { findAccessKey } from '../auth/access-keys.ts';
import { KeyError } from '../keys/key-service.ts';
import { ApiError, wireErrors } from '../wire/api-error.ts';
import type { HttpAnswer, HttpRequest } from '../wire/http-server.ts';
import { readScope, verifySignature } from '../wire/signature.ts';
import type { EbsEndpoint } from './ebs-endpoint.ts';
import { type Ec2Endpoint, queryParameters } from './ec2-endpoint.ts';
import { stsEndpoint } from './sts-endpoint.ts';
import type { Throttle } from './throttle.ts';

export type Health = { status: 'live' | 'ready'; version: string };

/** The one door: tells the services apart, checks who asks, and turns every failure into an answer. */
export class Gateway {
  readonly #services: Services;
  readonly #ec2: Ec2Endpoint;
  readonly #ebs: EbsEndpoint;
  readonly #admin: AdminEndpoint;
  readonly #throttle: Throttle;
  readonly #health: () => Health;

  constructor(
    services: Services,
    ec2: Ec2Endpoint,
    ebs: EbsEndpoint,
    admin: AdminEndpoint,
    throttle: Throttle,
    health: () => Health,
  ) {
    this.#services = services;
    this.#ec2 = ec2;
    this.#ebs = ebs;
    this.#admin = admin;
    this.#throttle = throttle;
    this.#health = health;
  }

  async handle(request: HttpRequest): Promise<HttpAnswer> {
    if (request.path === '/health' && request.method === 'GET') {
      return { status: 200, contentType: 'application/json', body: `${JSON.stringify(this.#health())}\n` };
    }
    const requestId = randomUUID();
    const service = claimedService(request.headers);
    let answer: HttpAnswer;
    try {
      const caller = await this.#authenticate(request);
      answer = await this.#dispatch(service, request, caller, requestId);
    } catch (failure) {
      const error = asApiError(failure) ?? this.#unforeseen(failure, requestId);
      answer = this.#errorOf(service, error, requestId);
    }
    return { ...answer, headers: { ...answer.headers, 'x-amzn-RequestId': requestId } };
  }

  /** For a request that was refused before it was read whole. */
  refuse(error: ApiError): HttpAnswer {
    return this.#errorOf('ec2', error, randomUUID());
  }

  async #authenticate(request: HttpRequest): Promise<Caller> {
    const claimed = readScope(request.headers);
    const key = await findAccessKey(this.#services.catalog, claimed.accessKeyId);
    await verifySignature(request, key?.secret_access_key, this.#services.now());
    if (key === undefined) throw wireErrors.authFailure();
    // A request signed for another region was not meant for here.
    if (!this.#services.regions.has(claimed.region)) throw wireErrors.authFailure();
    if (!this.#throttle.admit(key.account_id)) throw wireErrors.throttled(claimed.service);
    return {
      accountId: key.account_id,
      userName: key.user_name,
      accessKeyId: key.access_key_id,
      region: claimed.region,
    };
  }

  async #dispatch(service: string, request: HttpRequest, caller: Caller, requestId: string): Promise<HttpAnswer> {
    switch (service) {
      case 'ec2':
        if (request.path !== '/') throw wireErrors.notFound(request.path);
        return this.#ec2.answer(queryParameters(request), caller, requestId);
      case 'sts':
        return stsEndpoint.answer(queryParameters(request), caller, requestId);
      case 'ebs':
        return this.#ebs.answer(request, caller, requestId);
      case 'cleancut':
        return this.#admin.answer(request, caller, requestId);
      default:
        throw new ApiError('UnsupportedOperation', `The service '${service}' is not offered here.`);
    }
  }

  #errorOf(service: string, error: ApiError, requestId: string): HttpAnswer {
    switch (service) {
      case 'sts':
        return stsEndpoint.error(error, requestId);
      case 'ebs':
        return this.#ebs.error(error, requestId);
      case 'cleancut':
        return this.#admin.error(error, requestId);
      default:
        return this.#ec2.error(error, requestId);
    }
  }

  #unforeseen(failure: unknown, requestId: string): ApiError {
    this.#services.log('error', `request ${requestId}: ${(failure as Error).stack ?? String(failure)}`);
    return wireErrors.internal();
  }
}

/** What keeps a key from being used is the caller's to know, whatever it was needed for. */
function asApiError(failure: unknown): ApiError | undefined {
  if (failure instanceof ApiError) return failure;
  if (!(failure instanceof KeyError)) return undefined;
  switch (failure.reason) {
    case 'NotFound':
      return errors.keyNotFound(failure.message);
    case 'Disabled':
    case 'Unusable':
      return errors.keyState(failure.message);
    case 'InvalidName':
      return new ApiError('InvalidAliasName', failure.message);
    case 'Taken':
      return new ApiError('AlreadyExists', failure.message);
    default:
      return failure.reason satisfies never;
  }
}

/** What the request says it is for; unproven, and used only to choose the form of the answer until it is. */
function claimedService(headers: Record<string, string>): string {
  try {
    return readScope(headers).service;
  } catch {
    return 'ec2';
  }
}
