import { z } from 'zod';
import type { Catalog } from '../../catalog/catalog.ts';
import type { RetentionRuleRow } from '../../catalog/schema.ts';
import type { Call } from '../operation.ts';
import { ruleErrors } from './rule-errors.ts';

/** An operation of the Recycle Bin's API, from the members of its request to those of its answer. */
export type RuleOperation = (input: Record<string, unknown>, call: Call) => Promise<object>;

/** An operation with the form of what it takes. @throws ApiError ValidationException, which names the member and its value */
export function ruleOperation<Schema extends z.ZodType>(
  schema: Schema,
  run: (input: z.output<Schema>, call: Call) => Promise<object>,
): RuleOperation {
  return async (input, call) => {
    const parsed = schema.safeParse(input);
    if (!parsed.success) throw ruleErrors.invalid(z.prettifyError(parsed.error));
    return run(parsed.data, call);
  };
}

/** One of the caller's rules, in its region. @throws ApiError ResourceNotFoundException */
export async function findRule(catalog: Catalog, call: Call, ruleId: string): Promise<RetentionRuleRow> {
  const rule = await catalog
    .selectFrom('retention_rules')
    .selectAll()
    .where('rule_id', '=', ruleId)
    .where('account_id', '=', call.caller.accountId)
    .where('region', '=', call.region)
    .executeTakeFirst();
  if (rule === undefined) throw ruleErrors.noRule(ruleId);
  return rule;
}

/** Reads a rule and changes it in one step. @throws ApiError ResourceNotFoundException */
export function changeRule(
  call: Call,
  ruleId: string,
  change: (rule: RetentionRuleRow) => Partial<Omit<RetentionRuleRow, 'rule_id'>>,
): Promise<RetentionRuleRow> {
  return call.services.catalog.transaction().execute(async (transaction) => {
    const rule = await findRule(transaction, call, ruleId);
    const changes = change(rule);
    await transaction.updateTable('retention_rules').set(changes).where('rule_id', '=', ruleId).execute();
    return { ...rule, ...changes };
  });
}
