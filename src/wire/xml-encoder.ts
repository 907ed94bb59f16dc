import { XmlNode, XmlText } from '@aws-sdk/xml-builder';
import type { NormalizedSchema } from '@smithy/core/schema';
import type { ApiError } from './api-error.ts';
import { trait } from './model.ts';

const EC2_NAMESPACE = 'http://ec2.amazonaws.com/doc/2016-11-15/';
const STS_NAMESPACE = 'https://sts.amazonaws.com/doc/2011-06-15/';
const DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n';

/** Writes the SDK's typed output as EC2 does: `<CreateSnapshotsResponse><requestId/><snapshotSet><item>…`. */
export function encodeEc2(action: string, output: NormalizedSchema, value: object, requestId: string): string {
  const root = new XmlNode(`${action}Response`).addAttribute('xmlns', EC2_NAMESPACE);
  root.addChildNode(textNode('requestId', requestId));
  const members = output.isStructSchema() ? structureNodes(output, value as Record<string, unknown>) : [];
  for (const node of members) root.addChildNode(node);
  // What an operation answers that has nothing to say.
  if (members.length === 0 && isEmptyStructure(output)) root.addChildNode(textNode('return', 'true'));
  return DECLARATION + root.toString();
}

export function encodeEc2Error(error: ApiError, requestId: string): string {
  const body = new XmlNode('Error', [textNode('Code', error.code), textNode('Message', error.message)]);
  const root = new XmlNode('Response', [new XmlNode('Errors', [body]), textNode('RequestID', requestId)]);
  return DECLARATION + root.toString();
}

/** STS speaks the older awsQuery protocol: a result element of its own, and the request id in the metadata. */
export function encodeSts(action: string, result: Record<string, string>, requestId: string): string {
  const members = Object.entries(result).map(([name, value]) => textNode(name, value));
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

function structureNodes(schema: NormalizedSchema, value: Record<string, unknown>): XmlNode[] {
  const nodes: XmlNode[] = [];
  for (const [member, memberSchema] of schema.structIterator()) {
    const memberValue = value[member];
    if (memberValue === undefined || memberValue === null) continue;
    nodes.push(valueNode(trait(memberSchema, 'xmlName') ?? member, memberSchema, memberValue));
  }
  return nodes;
}

function valueNode(name: string, schema: NormalizedSchema, value: unknown): XmlNode {
  if (schema.isListSchema()) {
    const item = schema.getValueSchema();
    const itemName = trait(item, 'xmlName') ?? 'item';
    return new XmlNode(
      name,
      (value as unknown[]).map((member) => valueNode(itemName, item, member)),
    );
  }
  if (schema.isStructSchema()) return new XmlNode(name, structureNodes(schema, value as Record<string, unknown>));
  if (value instanceof Date) return textNode(name, value.toISOString());
  if (value instanceof Uint8Array) return textNode(name, Buffer.from(value).toString('base64'));
  return textNode(name, String(value));
}

function textNode(name: string, text: string): XmlNode {
  return new XmlNode(name, [new XmlText(text)]);
}

function isEmptyStructure(schema: NormalizedSchema): boolean {
  if (!schema.isStructSchema()) return true;
  for (const _ of schema.structIterator()) return false;
  return true;
}
