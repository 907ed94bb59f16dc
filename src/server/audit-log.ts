import { randomUUID } from 'node:crypto';
import { type DestinationStream, pino } from 'pino';
import type { Caller } from '../api/operation.ts';
import { userArn } from '../auth/users.ts';
import type { ApiError } from '../wire/api-error.ts';
import type { HttpRequest } from '../wire/http-server.ts';

export type ApiEvent = {
  requestId: string;
  service: string;
  request: HttpRequest;
  /** Once the request is known to be his. */
  caller: Caller | undefined;
  error: ApiError | undefined;
};

/** A client of the data plane: over TLS it has proven an identity, over the unix socket it is the server's own user. */
export type ConnectionEvent = {
  exportName: string;
  identity: string | undefined;
  transport: 'unix' | 'tcp' | 'tls';
  sourceAddress: string;
  refused: boolean;
};

const EVENT_VERSION = '1.10';
/** Values that no log may hold. */
const SENSITIVE =
  /^(UserData|PresignedUrl|EncodedMessage|TokenCode|X-Amz-.*|BlockToken|NextToken|blockToken|pageToken)$/i;
const LONGEST_VALUE = 256;
const MOST_PARAMETERS = 100;

/**
 * Who did what, from where, and how it ended: one line of JSON for each API call and each data-plane connection, in
 * CloudTrail's record shape, appended to a file that only grows.
 */
export class AuditLog {
  readonly #stream: DestinationStream & { reopen(): void; flushSync(): void; end(): void };
  readonly #now: () => Date;
  readonly #region: string;
  readonly #account: string;

  constructor(path: string, account: string, region: string, now: () => Date) {
    this.#stream = pino.destination({ dest: path, append: true, mkdir: true, mode: 0o600, sync: false, minLength: 0 });
    this.#now = now;
    this.#region = region;
    this.#account = account;
  }

  apiCall({ requestId, service, request, caller, error }: ApiEvent): void {
    const { name, parameters } = describeRequest(service, request);
    this.#write({
      eventVersion: EVENT_VERSION,
      userIdentity:
        caller === undefined
          ? { type: 'Unknown', accountId: '', userName: '' }
          : {
              type: 'IAMUser',
              arn: userArn(caller.accountId, caller.userName),
              accountId: caller.accountId,
              accessKeyId: caller.accessKeyId,
              userName: caller.userName,
            },
      eventTime: this.#now().toISOString(),
      eventSource: `${service}.amazonaws.com`,
      eventName: name,
      awsRegion: caller?.region ?? this.#region,
      sourceIPAddress: request.sourceAddress,
      userAgent: shortened(request.headers['user-agent'] ?? ''),
      ...(error === undefined ? {} : { errorCode: error.code, errorMessage: shortened(error.message) }),
      requestParameters: parameters,
      responseElements: null,
      requestID: requestId,
      eventID: randomUUID(),
      readOnly: /^(Describe|Get|List|Decode)/.test(name),
      eventType: 'AwsApiCall',
      managementEvent: service !== 'ebs',
      recipientAccountId: caller?.accountId ?? this.#account,
      eventCategory: service === 'ebs' ? 'Data' : 'Management',
    });
  }

  connection({ exportName, identity, transport, sourceAddress, refused }: ConnectionEvent): void {
    this.#write({
      eventVersion: EVENT_VERSION,
      userIdentity:
        identity === undefined ? { type: 'Root', userName: 'operator' } : { type: 'Client', userName: identity },
      eventTime: this.#now().toISOString(),
      eventSource: 'nbd.cleancut',
      eventName: 'OpenExport',
      awsRegion: this.#region,
      sourceIPAddress: sourceAddress === '' ? 'unix socket' : sourceAddress,
      userAgent: `nbd over ${transport}`,
      ...(refused ? { errorCode: 'AccessDenied', errorMessage: 'There is no such export for this client.' } : {}),
      requestParameters: { exportName: shortened(exportName) },
      responseElements: null,
      requestID: randomUUID(),
      eventID: randomUUID(),
      readOnly: false,
      eventType: 'AwsServiceEvent',
      managementEvent: false,
      recipientAccountId: this.#account,
      eventCategory: 'Data',
    });
  }

  /** Goes on in a new file of the same name: after the old one was moved away. */
  reopen(): void {
    this.#stream.reopen();
  }

  close(): void {
    try {
      this.#stream.flushSync();
    } catch {
      // Nothing was ever written.
    }
    this.#stream.end();
  }

  #write(record: object): void {
    this.#stream.write(`${JSON.stringify(record)}\n`);
  }
}

/** What was asked, without what must not be kept. The body of an EBS call is a volume's data, and is left out. */
function describeRequest(service: string, request: HttpRequest): { name: string; parameters: Record<string, string> } {
  const parameters = new URLSearchParams(request.query);
  if (service === 'ebs' || service === 'cleancut') {
    return { name: shortened(`${request.method} ${request.path}`), parameters: kept(parameters) };
  }
  if (request.method === 'POST') {
    for (const [name, value] of new URLSearchParams(request.body.toString('utf8'))) parameters.append(name, value);
  }
  return { name: shortened(parameters.get('Action') ?? ''), parameters: kept(parameters) };
}

function kept(parameters: URLSearchParams): Record<string, string> {
  const result: Record<string, string> = {};
  let count = 0;
  for (const [name, value] of parameters) {
    if (name === 'Action' || name === 'Version' || count >= MOST_PARAMETERS) continue;
    count += 1;
    result[shortened(name)] = SENSITIVE.test(name) ? 'HIDDEN_DUE_TO_SECURITY_REASONS' : shortened(value);
  }
  return result;
}

function shortened(text: string): string {
  return text.length <= LONGEST_VALUE ? text : `${text.slice(0, LONGEST_VALUE)}…`;
}
