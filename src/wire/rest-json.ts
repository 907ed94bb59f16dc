import { NormalizedSchema } from '@smithy/core/schema';
import { wireErrors } from './api-error.ts';
import { requiredCount } from './model.ts';

/** Where an operation of a restJson1 service is asked for, and with which status it answers. */
export type Route = { name: string; method: string; path: RegExp; labels: readonly string[]; status: number };

/** An operation with what goes in and what comes out. */
export type RestOperation = Route & {
  input: NormalizedSchema;
  output: NormalizedSchema;
};

export type RestRequest = {
  method: string;
  path: string;
  query: URLSearchParams;
  headers: Record<string, string>;
  body: Buffer;
};
export type RestAnswer = {
  status: number;
  contentType: string;
  body: string | Buffer;
  headers: Record<string, string>;
};

type StaticOperation = readonly [9, string, string, { http: [string, string, number] }, () => unknown, () => unknown];

/** Reads the operations of a service out of its SDK's exports. */
export function restOperations(sdk: Record<string, unknown>): RestOperation[] {
  return Object.values(sdk).flatMap((exported) => {
    if (!Array.isArray(exported) || exported[0] !== 9) return [];
    const [, , name, { http }, input, output] = exported as unknown as StaticOperation;
    return [{ ...newRoute(name, ...http), input: normalized(input), output: normalized(output) }];
  });
}

/** @param template the path, with labels like `{SnapshotId}` */
export function newRoute(name: string, method: string, template: string, status: number): Route {
  const labels = [...template.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
  const path = new RegExp(`^${template.replace(/\{\w+\}/g, '([^/]+)')}$`);
  return { name, method, path, labels, status };
}

/** @returns the operation that a request is for, and the labels of its path */
export function matchRoute<Operation extends Route>(
  operations: readonly Operation[],
  method: string,
  path: string,
): { operation: Operation; labels: Map<string, string> } | undefined {
  // The route with the fewest labels first: `/snapshots/completion/x` is no block of a snapshot named `completion`.
  for (const operation of [...operations].sort((a, b) => a.labels.length - b.labels.length)) {
    const match = operation.method === method ? operation.path.exec(path) : null;
    if (match === null) continue;
    const labels = operation.labels.map((label, index): [string, string] => [label, decodeLabel(match[index + 1])]);
    return { operation, labels: new Map(labels) };
  }
  return undefined;
}

/** What a request asks for, as a log has it; undefined where it names no operation, or not well. */
export function namedRoute(
  routes: readonly Route[],
  { method, path }: Pick<RestRequest, 'method' | 'path'>,
): { name: string; labels: ReadonlyMap<string, string> } | undefined {
  try {
    const route = matchRoute(routes, method, path);
    return route && { name: route.operation.name, labels: route.labels };
  } catch {
    return undefined;
  }
}

/** @throws ApiError ValidationException when its percent signs encode nothing */
function decodeLabel(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw wireErrors.validation(`'${text}' in the path is not well encoded.`, 'INVALID_PARAMETER_VALUE');
  }
}

/** Reads a request into the SDK's typed input: labels, query, headers, and the body. @throws ApiError ValidationException */
export function decodeRest(
  operation: RestOperation,
  request: RestRequest,
  labels: Map<string, string>,
): Record<string, unknown> {
  const decoded: Record<string, unknown> = {};
  const body = hasJsonBody(operation.input) ? parseJson(request.body) : {};
  let index = 0;
  const required = requiredCount(operation.input);
  for (const [member, schema] of operation.input.structIterator()) {
    const traits = schema.getMergedTraits() as Record<string, unknown>;
    let value: unknown;
    if (traits.httpLabel) value = scalar(schema, labels.get(member), member);
    else if (typeof traits.httpQuery === 'string')
      value = scalar(schema, request.query.get(traits.httpQuery) ?? undefined, member);
    else if (typeof traits.httpHeader === 'string')
      value = scalar(schema, request.headers[traits.httpHeader.toLowerCase()], member);
    else if (traits.httpPayload) value = request.body;
    else value = fromJson(schema, body[member], member);
    if (value !== undefined) decoded[member] = value;
    else if (index < required)
      throw wireErrors.validation(`The request must have ${member}.`, 'INVALID_PARAMETER_VALUE');
    index += 1;
  }
  return decoded;
}

/** Writes the SDK's typed output: headers, and a body that is a payload or JSON. */
export function encodeRest(operation: RestOperation, value: Record<string, unknown>): RestAnswer {
  const headers: Record<string, string> = {};
  const json: Record<string, unknown> = {};
  let payload: Buffer | undefined;
  for (const [member, schema] of operation.output.structIterator()) {
    const found = value[member];
    if (found === undefined) continue;
    const traits = schema.getMergedTraits() as Record<string, unknown>;
    if (typeof traits.httpHeader === 'string') headers[traits.httpHeader] = String(found);
    else if (traits.httpPayload) payload = found as Buffer;
    else json[member] = toJson(found);
  }
  if (payload !== undefined) {
    return { status: operation.status, contentType: 'application/octet-stream', body: payload, headers };
  }
  return { status: operation.status, contentType: 'application/json', body: JSON.stringify(json), headers };
}

function normalized(schema: unknown): NormalizedSchema {
  return NormalizedSchema.of(schema as Parameters<typeof NormalizedSchema.of>[0]);
}

function hasJsonBody(input: NormalizedSchema): boolean {
  for (const [, schema] of input.structIterator()) {
    const traits = schema.getMergedTraits() as Record<string, unknown>;
    if (traits.httpPayload) return false;
  }
  return true;
}

/** @throws ApiError ValidationException */
export function parseJson(body: Buffer): Record<string, unknown> {
  if (body.length === 0) return {};
  try {
    const parsed: unknown = JSON.parse(body.toString('utf8'));
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed))
      return parsed as Record<string, unknown>;
  } catch {
    // Said below.
  }
  throw wireErrors.validation('The body is not a JSON object.', 'INVALID_PARAMETER_VALUE');
}

function scalar(schema: NormalizedSchema, text: string | undefined, member: string): unknown {
  if (text === undefined) return undefined;
  if (!schema.isNumericSchema()) return text;
  if (!/^-?\d{1,15}$/.test(text)) throw notOfType(member, text, 'a whole number');
  return Number(text);
}

function fromJson(schema: NormalizedSchema, value: unknown, member: string): unknown {
  if (value === undefined || value === null) return undefined;
  if (schema.isListSchema()) {
    if (!Array.isArray(value)) throw notOfType(member, value, 'a list');
    return value.map((item) => fromJson(schema.getValueSchema(), item, member));
  }
  if (schema.isStructSchema()) {
    if (typeof value !== 'object') throw notOfType(member, value, 'an object');
    const decoded: Record<string, unknown> = {};
    for (const [name, inner] of schema.structIterator()) {
      const found = fromJson(inner, (value as Record<string, unknown>)[name], `${member}.${name}`);
      if (found !== undefined) decoded[name] = found;
    }
    return decoded;
  }
  if (schema.isBooleanSchema() && typeof value !== 'boolean') throw notOfType(member, value, 'true or false');
  if (schema.isNumericSchema() && !Number.isSafeInteger(value)) throw notOfType(member, value, 'a whole number');
  if (schema.isStringSchema() && typeof value !== 'string') throw notOfType(member, value, 'a string');
  return value;
}

function notOfType(member: string, value: unknown, wanted: string): Error {
  return wireErrors.validation(`Value (${String(value)}) of ${member} is not ${wanted}.`, 'INVALID_PARAMETER_VALUE');
}

/** Times are seconds since 1970, as restJson1 has them. */
export function toJson(value: unknown): unknown {
  if (value instanceof Date) return value.getTime() / 1000;
  if (Array.isArray(value)) return value.map(toJson);
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, toJson(inner)]));
  }
  return value;
}
