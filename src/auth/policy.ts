import { z } from 'zod';
import { CONDITION_OPERATORS, conditionHolds, parseOperator } from './conditions.ts';
import { matchesPattern } from './wildcards.ts';

const MAX_POLICY_CHARACTERS = 6144;
const OneOrMany = z.union([z.string(), z.array(z.string()).min(1)]).transform((value) => [value].flat());
const Value = z.union([z.string(), z.number().transform(String), z.boolean().transform(String)]);
const Values = z.union([Value, z.array(Value)]).transform((value) => [value].flat());

const Statement = z
  .strictObject({
    Sid: z
      .string()
      .regex(/^[A-Za-z0-9]*$/)
      .optional(),
    Effect: z.enum(['Allow', 'Deny']),
    Action: OneOrMany.optional(),
    NotAction: OneOrMany.optional(),
    Resource: OneOrMany.optional(),
    NotResource: OneOrMany.optional(),
    Condition: z.record(z.string(), z.record(z.string(), Values)).optional(),
  })
  .refine((statement) => (statement.Action === undefined) !== (statement.NotAction === undefined), {
    error: 'a statement has either Action or NotAction',
  })
  .refine((statement) => (statement.Resource === undefined) !== (statement.NotResource === undefined), {
    error: 'a statement has either Resource or NotResource',
  });

const Document = z.strictObject({
  Version: z.enum(['2012-10-17', '2008-10-17']).default('2008-10-17'),
  Id: z.string().optional(),
  // One statement may stand alone.
  Statement: z.preprocess((value) => (Array.isArray(value) ? value : [value]), z.array(Statement).min(1)),
});

export type Policy = z.output<typeof Document>;
type Statement = Policy['Statement'][number];

/** What is asked: may this be done to that, as things are? */
export type Question = {
  /** Like `ec2:CreateSnapshots`. */
  action: string;
  /** An ARN, or `*` where an action has no resource. */
  resource: string;
  /** Condition keys and their values, keys in lower case: none, one, or several. */
  context: ReadonlyMap<string, readonly string[]>;
};

export type Decision =
  | { allowed: true }
  | { allowed: false; explicit: boolean; statements: { sid: string; effect: 'Allow' | 'Deny' }[] };

/** Lets everything happen within the account: what users are given who are given nothing else. */
export const ADMINISTRATOR_ACCESS: Policy = {
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Action: ['*'], Resource: ['*'] }],
};

/**
 * Reads an identity policy.
 * @throws PolicyError with what is wrong and where
 * @see AWS, "IAM JSON policy elements reference"
 */
export function parsePolicy(text: string): Policy {
  if (text.length > MAX_POLICY_CHARACTERS) {
    throw new PolicyError(`the policy has ${text.length} characters; ${MAX_POLICY_CHARACTERS} is the most`);
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new PolicyError(`the policy is not JSON: ${(error as Error).message}`);
  }
  const parsed = Document.safeParse(json);
  if (!parsed.success) throw new PolicyError(z.prettifyError(parsed.error));
  for (const statement of parsed.data.Statement) checkStatement(statement);
  return parsed.data;
}

export class PolicyError extends Error {
  override name = 'PolicyError';
}

/** An explicit deny wins over any allow; what nothing allows is denied. */
export function decide(policies: readonly Policy[], question: Question): Decision {
  const matched = policies.flatMap(({ Version, Statement }) =>
    Statement.filter((statement) => applies(statement, question, Version === '2012-10-17')),
  );
  const denying = matched.filter((statement) => statement.Effect === 'Deny');
  if (denying.length === 0 && matched.length > 0) return { allowed: true };
  const statements = denying.map(({ Sid = '', Effect }) => ({ sid: Sid, effect: Effect }));
  return { allowed: false, explicit: denying.length > 0, statements };
}

/** Whether all is allowed whatever the resource and the circumstances: then these need not be looked up. */
export function allowsEverything(policies: readonly Policy[]): boolean {
  const statements = policies.flatMap((policy) => policy.Statement);
  return (
    statements.every((statement) => statement.Effect === 'Allow') &&
    statements.some(
      ({ Action, Resource, Condition }) =>
        Condition === undefined && Action?.includes('*') === true && Resource?.includes('*') === true,
    )
  );
}

function applies(statement: Statement, question: Question, variables: boolean): boolean {
  const { Action, NotAction, Resource, NotResource, Condition } = statement;
  const named = (patterns: readonly string[], value: string, ignoreCase: boolean): boolean =>
    patterns.some((pattern) =>
      matchesPattern(pattern, value, { ignoreCase, context: variables ? question.context : undefined }),
    );
  if (Action !== undefined && !named(Action, question.action, true)) return false;
  if (NotAction !== undefined && named(NotAction, question.action, true)) return false;
  if (Resource !== undefined && !named(Resource, question.resource, false)) return false;
  if (NotResource !== undefined && named(NotResource, question.resource, false)) return false;
  for (const [operator, keys] of Object.entries(Condition ?? {})) {
    for (const [key, wanted] of Object.entries(keys)) {
      if (!conditionHolds(parseOperator(operator), key, wanted, question.context, variables)) return false;
    }
  }
  return true;
}

function checkStatement({ Action, NotAction, Condition }: Statement): void {
  for (const action of [...(Action ?? []), ...(NotAction ?? [])]) {
    if (action !== '*' && !/^[A-Za-z0-9-]+:[A-Za-z0-9*?]+$/.test(action)) {
      throw new PolicyError(`'${action}' is no action: write SERVICE:NAME, like ec2:CreateSnapshots`);
    }
  }
  for (const operator of Object.keys(Condition ?? {})) {
    if (!CONDITION_OPERATORS.has(parseOperator(operator).name)) {
      throw new PolicyError(`the condition operator '${operator}' is not known`);
    }
  }
}
