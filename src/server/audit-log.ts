import { randomUUID } from 'node:crypto';
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import type { Caller } from '../api/operation.ts';
import { userArn } from '../auth/users.ts';
import type { ApiError } from '../wire/api-error.ts';
import type { HttpRequest } from '../wire/http-server.ts';

export type ApiEvent = {
  requestId: string;
  service: string;
  request: HttpRequest;
  /** Which operation its method and path name, and the labels in the path; where its parameters do, nothing. */
  route: { name: string; labels: ReadonlyMap<string, string> } | undefined;
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
/** That name what is asked for by method and path. */
const REST_SERVICES = new Set(['ebs', 'cleancut', 'rbin']);
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
  readonly #path: string;
  readonly #now: () => Date;
  readonly #region: string;
  readonly #account: string;
  readonly #onLost: (error: Error) => void;
  #file: number;
  /** The last line may be there in part: the next one begins on a line of its own. */
  #torn = false;

  /** @param onLost told of each record that could not be written: a full disk ends the log, not the service */
  constructor(path: string, account: string, region: string, now: () => Date, onLost: (error: Error) => void) {
    this.#path = path;
    this.#file = openFile(path);
    this.#now = now;
    this.#region = region;
    this.#account = account;
    this.#onLost = onLost;
  }

  apiCall({ requestId, service, request, route, caller, error }: ApiEvent): void {
    const { name, parameters } = describeRequest(service, request, route);
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
    const file = openSync(this.#path, 'a', 0o600);
    closeSync(this.#file);
    this.#file = file;
    this.#torn = false;
  }

  close(): void {
    fsyncSync(this.#file);
    closeSync(this.#file);
  }

  #write(record: object): void {
    const line = Buffer.from(`${this.#torn ? '\n' : ''}${JSON.stringify(record)}\n`);
    try {
      // In the page cache before the call is answered: a server that is killed leaves its log whole.
      const written = writeSync(this.#file, line);
      this.#torn = written < line.length;
      if (this.#torn) throw new Error(`${written} of ${line.length} bytes were written`);
    } catch (error) {
      this.#torn = true;
      this.#onLost(error as Error);
    }
  }
}

/** What was asked, without what must not be kept. The body of an EBS call is a volume's data; bodies of JSON are left out. */
function describeRequest(
  service: string,
  request: HttpRequest,
  route: ApiEvent['route'],
): { name: string; parameters: Record<string, string> } {
  const parameters = new URLSearchParams(request.query);
  if (route !== undefined) {
    for (const [name, value] of route.labels) parameters.append(name, value);
    return { name: route.name, parameters: kept(parameters) };
  }
  if (REST_SERVICES.has(service)) {
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

/** @throws with the setting that names it */
function openFile(path: string): number {
  try {
    return openSync(path, 'a', 0o600);
  } catch (error) {
    throw new Error(`the audit log (--audit-log) cannot be opened: ${(error as Error).message}`);
  }
}
