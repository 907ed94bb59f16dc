import { randomUUID } from 'node:crypto';
import type { AdminEndpoint } from '../admin/admin-endpoint.ts';
import { errors } from '../api/errors.ts';
import type { Caller, Services } from '../api/operation.ts';
import type { Identity } from '../auth/users.ts';
import { KeyError } from '../keys/key-service.ts';
import { ApiError, wireErrors } from '../wire/api-error.ts';
import type { HttpAnswer, HttpRequest } from '../wire/http-server.ts';
import { readClaim, sameText, verifySignature } from '../wire/signature.ts';
import type { ApiEvent, AuditLog } from './audit-log.ts';
import type { EbsEndpoint } from './ebs-endpoint.ts';
import { type Ec2Endpoint, queryParameters } from './ec2-endpoint.ts';
import type { Health } from './health.ts';
import { isLoopback } from './loopback.ts';
import type { Metrics } from './metrics.ts';
import type { RecycleBinEndpoint } from './recycle-bin-endpoint.ts';
import type { StsEndpoint } from './sts-endpoint.ts';
import type { Throttle } from './throttle.ts';

/** Load balancers ask by HEAD, too. */
const MONITOR_METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD']);

/** The one door: tells the services apart, checks who asks, and turns every failure into an answer. */
export class Gateway {
  readonly #services: Services;
  readonly #ec2: Ec2Endpoint;
  readonly #ebs: EbsEndpoint;
  readonly #recycleBin: RecycleBinEndpoint;
  readonly #sts: StsEndpoint;
  readonly #admin: AdminEndpoint;
  readonly #throttle: Throttle;
  readonly #audit: AuditLog;
  readonly #health: Health;
  readonly #metrics: Metrics;
  readonly #metricsToken: string | undefined;

  constructor(
    services: Services,
    ec2: Ec2Endpoint,
    ebs: EbsEndpoint,
    recycleBin: RecycleBinEndpoint,
    sts: StsEndpoint,
    admin: AdminEndpoint,
    throttle: Throttle,
    audit: AuditLog,
    health: Health,
    metrics: Metrics,
    metricsToken: string | undefined,
  ) {
    this.#services = services;
    this.#ec2 = ec2;
    this.#ebs = ebs;
    this.#recycleBin = recycleBin;
    this.#sts = sts;
    this.#audit = audit;
    this.#admin = admin;
    this.#throttle = throttle;
    this.#health = health;
    this.#metrics = metrics;
    this.#metricsToken = metricsToken;
  }

  async handle(request: HttpRequest): Promise<HttpAnswer> {
    // What an answer takes of this thread, guests would wait for: those of a large page up to 0.1 s.
    await this.#services.dataPlane.afterHold();
    const plain = MONITOR_METHODS.has(request.method) ? await this.#plainAnswer(request) : undefined;
    if (plain !== undefined) return plain;
    const begun = performance.now();
    const requestId = randomUUID();
    const service = claimedService(request);
    const route = this.#routeOf(service, request);
    const event: ApiEvent = { requestId, service, request, route, caller: undefined, error: undefined };
    let answer: HttpAnswer;
    try {
      const { caller, identity } = await this.#authenticate(request);
      event.caller = caller;
      if (!this.#throttle.admit(caller.accountId)) throw wireErrors.throttled(service);
      answer = await this.#dispatch(service, request, caller, identity, requestId);
    } catch (failure) {
      const error = asApiError(failure) ?? this.#unforeseen(failure, requestId);
      event.error = error;
      answer = this.#errorOf(service, error, requestId);
    }
    this.#audit.apiCall(event);
    this.#metrics.apiCall(service, event.error?.code ?? '', (performance.now() - begun) / 1000);
    return { ...answer, headers: { ...answer.headers, 'x-amzn-RequestId': requestId } };
  }

  /** What is asked by monitors, which sign nothing. */
  async #plainAnswer(request: HttpRequest): Promise<HttpAnswer | undefined> {
    switch (request.path) {
      case '/health':
      case '/health/live':
        return json(200, await this.#health.report());
      case '/health/ready': {
        const report = await this.#health.report();
        return json(report.status === 'ready' ? 200 : 503, report);
      }
      case '/metrics':
        // The names of volumes are not everyone's business.
        if (!this.#mayScrape(request))
          return json(403, { message: 'from the loopback alone, or with the metrics token' });
        return { status: 200, contentType: 'text/plain; version=0.0.4', body: await this.#metrics.text() };
      default:
        return undefined;
    }
  }

  #mayScrape(request: HttpRequest): boolean {
    if (this.#metricsToken === undefined) return isLoopback(request.sourceAddress);
    return sameText(request.headers.authorization ?? '', `Bearer ${this.#metricsToken}`);
  }

  /** For a request that was refused before it was read whole. */
  refuse(error: ApiError): HttpAnswer {
    return this.#errorOf('ec2', error, randomUUID());
  }

  async #authenticate(request: HttpRequest): Promise<{ caller: Caller; identity: Identity }> {
    const claim = readClaim(request);
    const { users, now, regions } = this.#services;
    const identity = await users.identify(claim.accessKeyId);
    await verifySignature(request, claim, identity, now());
    if (identity === undefined) throw wireErrors.authFailure('key');
    // A request signed for another region was not meant for here.
    if (!regions.has(claim.region)) throw wireErrors.authFailure('signature');
    const { accountId, userName, accessKeyId } = identity;
    const caller: Caller = {
      accountId,
      userName,
      accessKeyId,
      region: claim.region,
      sourceAddress: request.sourceAddress,
      userAgent: request.headers['user-agent'] ?? '',
      secure: request.secure,
      policies: await users.policiesOf(accountId, userName),
    };
    return { caller, identity };
  }

  async #dispatch(
    service: string,
    request: HttpRequest,
    caller: Caller,
    identity: Identity,
    requestId: string,
  ): Promise<HttpAnswer> {
    switch (service) {
      case 'ec2':
        if (request.path !== '/') throw wireErrors.notFound(request.path);
        return this.#ec2.answer(queryParameters(request), caller, requestId);
      case 'sts':
        return this.#sts.answer(queryParameters(request), caller, identity, requestId);
      case 'ebs':
        return this.#ebs.answer(request, caller, requestId);
      case 'rbin':
        return this.#recycleBin.answer(request, caller, requestId);
      case 'cleancut':
        return this.#admin.answer(request, caller, requestId);
      default:
        throw new ApiError('UnsupportedOperation', `The service '${service}' is not offered here.`);
    }
  }

  #routeOf(service: string, request: HttpRequest): ApiEvent['route'] {
    if (service === 'ebs') return this.#ebs.routeOf(request);
    return service === 'rbin' ? this.#recycleBin.routeOf(request) : undefined;
  }

  #errorOf(service: string, error: ApiError, requestId: string): HttpAnswer {
    switch (service) {
      case 'sts':
        return this.#sts.error(error, requestId);
      case 'ebs':
        return this.#ebs.error(error, requestId);
      case 'rbin':
        return this.#recycleBin.error(error, requestId);
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
function claimedService(request: HttpRequest): string {
  try {
    return readClaim(request).service;
  } catch {
    return 'ec2';
  }
}

function json(status: number, body: object): HttpAnswer {
  return { status, contentType: 'application/json', body: `${JSON.stringify(body)}\n` };
}
