import { XmlNode, XmlText } from '@aws-sdk/xml-builder';
import type { NormalizedSchema } from '@smithy/core/schema';
import type { ApiError } from './api-error.ts';
import { trait } from './model.ts';

const EC2_NAMESPACE = 'http://ec2.amazonaws.com/doc/2016-11-15/';
const STS_NAMESPACE = 'https://sts.amazonaws.com/doc/2011-06-15/';
const DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n';

/** Writes the SDK's typed output as EC2 does: `<CreateSnapshotsResponse><requestId/><snapshotSet><item>…`. */
export function encodeEc2(action: string, output: NormalizedSchema, value: object, requestId: string): string {
  const members = output.isStructSchema() ? plansOf(output) : [];
  // What an operation answers that has nothing to say.
  const body =
    members.length === 0 ? element('return', 'true') : membersText(members, value as Record<string, unknown>);
  const root = `${action}Response`;
  return `${DECLARATION}<${root} xmlns="${EC2_NAMESPACE}">${element('requestId', escaped(requestId))}${body}</${root}>`;
}

export function encodeEc2Error(error: ApiError, requestId: string): string {
  const body = new XmlNode('Error', [textNode('Code', error.code), textNode('Message', error.message)]);
  const root = new XmlNode('Response', [new XmlNode('Errors', [body]), textNode('RequestID', requestId)]);
  return DECLARATION + root.toString();
}

/** Names and texts, one level deep or two. */
export type StsResult = { [name: string]: string | { [name: string]: string } };

function stsNode(name: string, value: StsResult[string]): XmlNode {
  if (typeof value === 'string') return textNode(name, value);
  return new XmlNode(
    name,
    Object.entries(value).map(([member, text]) => textNode(member, text)),
  );
}

/** STS speaks the older awsQuery protocol: a result element of its own, and the request id in the metadata. */
export function encodeSts(action: string, result: StsResult, requestId: string): string {
  const members = Object.entries(result).map(([name, value]) => stsNode(name, value));
  const root = new XmlNode(`${action}Response`, [
    new XmlNode(`${action}Result`, members),
    new XmlNode('ResponseMetadata', [textNode('RequestId', requestId)]),
  ]).addAttribute('xmlns', STS_NAMESPACE);
  return DECLARATION + root.toString();
}

export function encodeStsError(error: ApiError, requestId: string): string {
  const body = new XmlNode('Error', [
    textNode('Type', error.status < 500 ? 'Sender' : 'Receiver'),
    textNode('Code', error.code),
    textNode('Message', error.message),
  ]);
  const root = new XmlNode('ErrorResponse', [body, textNode('RequestId', requestId)]);
  return DECLARATION + root.addAttribute('xmlns', STS_NAMESPACE).toString();
}

type Writer = (value: unknown) => string;
/** How a member is written, worked out once for each structure of the model. */
type MemberPlan = { member: string; open: string; write: Writer; close: string };
const plans = new WeakMap<object, MemberPlan[]>();

function plansOf(structure: NormalizedSchema): MemberPlan[] {
  // By the SDK's own schema: the wrapper around it is made anew for each list.
  const key = structure.getSchema() as object;
  let found = plans.get(key);
  if (found === undefined) {
    found = [...structure.structIterator()].map(([member, schema]) => {
      const name = trait(schema, 'xmlName') ?? member;
      return { member, open: `<${name}>`, write: writerOf(schema), close: `</${name}>` };
    });
    plans.set(key, found);
  }
  return found;
}

function writerOf(schema: NormalizedSchema): Writer {
  if (schema.isListSchema()) {
    const item = schema.getValueSchema();
    const name = trait(item, 'xmlName') ?? 'item';
    const write = writerOf(item);
    const open = `<${name}>`;
    const close = `</${name}>`;
    return (list) => {
      let text = '';
      for (const member of list as readonly unknown[]) text += `${open}${write(member)}${close}`;
      return text;
    };
  }
  // A structure's members are looked at when there is one: some hold others of their own kind.
  if (schema.isStructSchema()) {
    let members: MemberPlan[] | undefined;
    return (value) => {
      members ??= plansOf(schema);
      return membersText(members, value as Record<string, unknown>);
    };
  }
  return scalarText;
}

function membersText(members: readonly MemberPlan[], value: Record<string, unknown>): string {
  let text = '';
  for (const { member, open, write, close } of members) {
    const found = value[member];
    if (found !== undefined && found !== null) text += `${open}${write(found)}${close}`;
  }
  return text;
}

function scalarText(value: unknown): string {
  if (typeof value === 'string') return escaped(value);
  if (value instanceof Date) return value.toISOString();
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
  return String(value);
}

/** @param content escaped already */
function element(name: string, content: string): string {
  return `<${name}>${content}</${name}>`;
}

function escaped(text: string): string {
  return new XmlText(text).toString();
}

function textNode(name: string, text: string): XmlNode {
  return new XmlNode(name, [new XmlText(text)]);
}
