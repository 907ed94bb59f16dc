import { Call, type Caller, type Services } from '../api/operation.ts';
import { OPERATIONS } from '../api/operations.ts';
import { refuseUnsupported } from '../api/parameters.ts';
import { ApiError, wireErrors } from '../wire/api-error.ts';
import type { HttpAnswer, HttpRequest } from '../wire/http-server.ts';
import { ec2Operations } from '../wire/model.ts';
import { decodeQuery } from '../wire/query-decoder.ts';
import { encodeEc2, encodeEc2Error } from '../wire/xml-encoder.ts';

const CONTENT_TYPE = 'text/xml;charset=UTF-8';

/** The EC2 Query API: GET or POST, form-encoded; answers in XML. */
export class Ec2Endpoint {
  readonly #services: Services;
  readonly #model = ec2Operations();

  constructor(services: Services) {
    this.#services = services;
  }

  async answer(parameters: URLSearchParams, caller: Caller, requestId: string): Promise<HttpAnswer> {
    const action = parameters.get('Action');
    if (action === null || action === '') throw wireErrors.missingAction();
    const version = parameters.get('Version');
    if (version !== null && !/^\d{4}-\d{2}-\d{2}$/.test(version)) throw wireErrors.invalidVersion(version);
    const shape = this.#model.get(action);
    if (shape === undefined) throw wireErrors.invalidAction(action);
    if (!Object.hasOwn(OPERATIONS, action)) throw wireErrors.notBuilt(action);
    const operation = OPERATIONS[action];
    const input = decodeQuery(shape.input, parameters);
    refuseUnsupported(operation, shape.input, input);
    const call = new Call(this.#services, caller, {
      requestId,
      action: `ec2:${action}`,
      dryRun: input.DryRun === true,
    });
    const output = await operation.run(input, call);
    call.assertPermitted();
    return { status: 200, contentType: CONTENT_TYPE, body: encodeEc2(action, shape.output, output, requestId) };
  }

  error(error: ApiError, requestId: string): HttpAnswer {
    return { status: error.status, contentType: CONTENT_TYPE, body: encodeEc2Error(error, requestId) };
  }
}

/** A Query request's parameters: of the URL, and of a form in the body. */
export function queryParameters(request: HttpRequest): URLSearchParams {
  const parameters = new URLSearchParams(request.query);
  if (request.method === 'GET') return parameters;
  if (request.method !== 'POST')
    throw new ApiError('InvalidRequest', `${request.method} is not used by this API.`, 405);
  for (const [name, value] of new URLSearchParams(request.body.toString('utf8'))) parameters.append(name, value);
  return parameters;
}
