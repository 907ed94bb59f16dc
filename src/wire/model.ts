import * as ec2 from '@aws-sdk/client-ec2';
import { NormalizedSchema } from '@smithy/core/schema';

/** An operation of AWS's published model: what goes in and what comes out. */
export type OperationShape = { name: string; input: NormalizedSchema; output: NormalizedSchema };

/** The SDK's own form of an operation: [9, namespace, name, traits, input, output]. */
type StaticOperation = readonly [9, string, string, unknown, () => unknown, () => unknown];

const OPERATION_KIND = 9;

function isOperation(exported: unknown): exported is StaticOperation {
  return Array.isArray(exported) && exported[0] === OPERATION_KIND;
}

/** Every operation of the EC2 API, by name, as the SDK's schemas describe it. */
export function ec2Operations(): Map<string, OperationShape> {
  const shapes = new Map<string, OperationShape>();
  for (const exported of Object.values(ec2)) {
    if (!isOperation(exported)) continue;
    const [, , name, , input, output] = exported;
    shapes.set(name, { name, input: normalized(input), output: normalized(output) });
  }
  return shapes;
}

function normalized(schema: unknown): NormalizedSchema {
  return NormalizedSchema.of(schema as Parameters<typeof NormalizedSchema.of>[0]);
}

/** How many members a structure requires: the SDK lists those first. */
export function requiredCount(structure: NormalizedSchema): number {
  const schema = structure.getSchema() as unknown as readonly unknown[];
  return typeof schema[6] === 'number' ? schema[6] : 0;
}

export function trait(schema: NormalizedSchema, name: 'ec2QueryName' | 'xmlName'): string | undefined {
  const value: unknown = (schema.getMergedTraits() as Record<string, unknown>)[name];
  return typeof value === 'string' ? value : undefined;
}
