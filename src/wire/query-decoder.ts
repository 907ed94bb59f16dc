import type { NormalizedSchema } from '@smithy/core/schema';
import { wireErrors } from './api-error.ts';
import { requiredCount, trait } from './model.ts';

const MAX_PARAMETERS = 10_000;
const MAX_DEPTH = 10;

/** Parameters of the protocol, not of the operation. */
const PROTOCOL_PARAMETERS = new Set([
  'Action',
  'Version',
  'AWSAccessKeyId',
  'SignatureMethod',
  'SignatureVersion',
  'Timestamp',
]);

/** The dotted names of a request, as the tree that they spell. */
type Node = { value: string | undefined; children: Map<string, Node> };

/**
 * Reads an EC2 Query request into the SDK's own typed input.
 * @param parameters decoded names and values, as `TagSpecification.1.Tag.1.Key`
 * @throws ApiError UnknownParameter, MissingParameter, InvalidParameterValue, each with the name as the client sent it
 */
export function decodeQuery(input: NormalizedSchema, parameters: URLSearchParams): Record<string, unknown> {
  const root: Node = { value: undefined, children: new Map() };
  let count = 0;
  for (const [name, value] of parameters) {
    if (PROTOCOL_PARAMETERS.has(name) || name.startsWith('X-Amz-')) continue;
    count += 1;
    if (count > MAX_PARAMETERS) throw wireErrors.tooManyParameters(MAX_PARAMETERS);
    plant(root, name, value);
  }
  return decodeStructure(input, root, '');
}

function plant(root: Node, name: string, value: string): void {
  const steps = name.split('.');
  if (steps.length > MAX_DEPTH) throw wireErrors.unknownParameter(name);
  let node = root;
  for (const step of steps) {
    let child = node.children.get(step);
    if (child === undefined) {
      child = { value: undefined, children: new Map() };
      node.children.set(step, child);
    }
    node = child;
  }
  if (node.value !== undefined) throw wireErrors.invalidValue(name, value, 'The parameter is given twice.');
  node.value = value;
}

function decodeStructure(schema: NormalizedSchema, node: Node, path: string): Record<string, unknown> {
  const decoded: Record<string, unknown> = {};
  const known = new Set<string>();
  let index = 0;
  const required = requiredCount(schema);
  for (const [member, memberSchema] of schema.structIterator()) {
    const name = queryName(member, memberSchema);
    const memberPath = path === '' ? name : `${path}.${name}`;
    known.add(name);
    const child = node.children.get(name);
    if (child !== undefined) decoded[member] = decodeValue(memberSchema, child, memberPath);
    else if (index < required) throw wireErrors.missingParameter(memberPath);
    index += 1;
  }
  for (const name of node.children.keys()) {
    if (!known.has(name)) throw wireErrors.unknownParameter(path === '' ? name : `${path}.${name}`);
  }
  return decoded;
}

function decodeValue(schema: NormalizedSchema, node: Node, path: string): unknown {
  if (schema.isListSchema()) return decodeList(schema, node, path);
  if (schema.isStructSchema()) {
    if (node.value !== undefined)
      throw wireErrors.invalidValue(path, node.value, 'The parameter has members, not a value.');
    return decodeStructure(schema, node, path);
  }
  const stray = node.children.keys().next().value;
  if (stray !== undefined) throw wireErrors.unknownParameter(`${path}.${stray}`);
  return decodeScalar(schema, node.value ?? '', path);
}

function decodeList(schema: NormalizedSchema, node: Node, path: string): unknown[] {
  if (node.value !== undefined && node.value !== '') {
    throw wireErrors.invalidValue(
      path,
      node.value,
      `The parameter is a list: name its members ${path}.1, ${path}.2, …`,
    );
  }
  const numbered = [...node.children].map(([name, child]) => {
    if (!/^[1-9]\d{0,5}$/.test(name)) throw wireErrors.unknownParameter(`${path}.${name}`);
    return { number: Number(name), child };
  });
  numbered.sort((a, b) => a.number - b.number);
  const item = schema.getValueSchema();
  return numbered.map(({ number, child }) => decodeValue(item, child, `${path}.${number}`));
}

function decodeScalar(schema: NormalizedSchema, value: string, path: string): unknown {
  if (schema.isBooleanSchema()) {
    const lower = value.toLowerCase();
    if (lower !== 'true' && lower !== 'false') throw wireErrors.invalidValue(path, value, 'Expected true or false.');
    return lower === 'true';
  }
  if (schema.isNumericSchema()) {
    if (!/^[+-]?\d{1,15}$/.test(value)) throw wireErrors.invalidValue(path, value, 'Expected a whole number.');
    return Number(value);
  }
  if (schema.isTimestampSchema()) {
    const time = new Date(value);
    if (!/^\d{4}-\d{2}-\d{2}T/.test(value) || Number.isNaN(time.getTime())) {
      throw wireErrors.invalidValue(path, value, 'Expected a time like 2019-05-29T12:34:56Z.');
    }
    return time;
  }
  if (schema.isBlobSchema()) return Buffer.from(value, 'base64');
  // What XML 1.0 has no way to write could never be answered back.
  if (!isXmlText(value))
    throw wireErrors.invalidValue(path, JSON.stringify(value), 'It has characters that are not allowed.');
  return value;
}

function isXmlText(value: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are just what is looked for.
  return !/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/.test(value) && value.isWellFormed();
}

/** @see EC2 Query protocol: `ec2QueryName`, else `xmlName` with a capital, else the member's own name with a capital */
function queryName(member: string, schema: NormalizedSchema): string {
  return trait(schema, 'ec2QueryName') ?? capitalized(trait(schema, 'xmlName') ?? member);
}

function capitalized(name: string): string {
  return name.charAt(0).toUpperCase() + name.slice(1);
}

/** The names under which a request may give each member of an operation's input. */
export function queryNameOf(input: NormalizedSchema, member: string): string {
  for (const [name, schema] of input.structIterator()) if (name === member) return queryName(name, schema);
  return member;
}
