import { BlockList, isIP } from 'node:net';
import { matchesPattern, withVariables } from './wildcards.ts';

type Context = ReadonlyMap<string, readonly string[]>;

export type Operator = {
  name: string;
  /** `ForAllValues:`, `ForAnyValue:`, or neither. */
  quantifier: 'all' | 'any' | undefined;
  /** `…IfExists`: holds where the key is not there. */
  ifExists: boolean;
};

/** Whether a value of the request is what the policy wants of it. */
type Test = (found: string, wanted: string, context: Context | undefined) => boolean;

const text = (test: (found: string, wanted: string) => boolean): Test => {
  return (found, wanted, context) => {
    const filled = withVariables(wanted, context);
    return filled !== undefined && test(found, filled);
  };
};
const number = (test: (found: number, wanted: number) => boolean): Test => {
  return (found, wanted) => {
    const [left, right] = [Number(found), Number(wanted)];
    return !Number.isNaN(left) && !Number.isNaN(right) && test(left, right);
  };
};
const date = (test: (found: number, wanted: number) => boolean): Test => {
  return (found, wanted) => {
    const [left, right] = [timeOf(found), timeOf(wanted)];
    return !Number.isNaN(left) && !Number.isNaN(right) && test(left, right);
  };
};
const like = (ignoreCase: boolean): Test => {
  return (found, wanted, context) => matchesPattern(wanted, found, { ignoreCase, context });
};
/** ARNs are compared field by field: a wildcard does not reach over a colon. */
const arnLike: Test = (found, wanted, context) => {
  const [left, right] = [fieldsOf(found), fieldsOf(wanted)];
  return (
    left.length === 6 &&
    right.length === 6 &&
    right.every((pattern, index) => matchesPattern(pattern, left[index], { ignoreCase: false, context }))
  );
};

/** The tests that hold when one of the wanted values passes; each has its opposite. */
const POSITIVE: Record<string, Test> = {
  StringEquals: text((found, wanted) => found === wanted),
  StringEqualsIgnoreCase: text((found, wanted) => found.toLowerCase() === wanted.toLowerCase()),
  StringLike: like(false),
  NumericEquals: number((found, wanted) => found === wanted),
  NumericLessThan: number((found, wanted) => found < wanted),
  NumericLessThanEquals: number((found, wanted) => found <= wanted),
  NumericGreaterThan: number((found, wanted) => found > wanted),
  NumericGreaterThanEquals: number((found, wanted) => found >= wanted),
  DateEquals: date((found, wanted) => found === wanted),
  DateLessThan: date((found, wanted) => found < wanted),
  DateLessThanEquals: date((found, wanted) => found <= wanted),
  DateGreaterThan: date((found, wanted) => found > wanted),
  DateGreaterThanEquals: date((found, wanted) => found >= wanted),
  Bool: text((found, wanted) => found.toLowerCase() === wanted.toLowerCase()),
  BinaryEquals: text((found, wanted) => found === wanted),
  IpAddress: (found, wanted) => inNetwork(found, wanted),
  ArnEquals: arnLike,
  ArnLike: arnLike,
};
const NEGATIVE: Record<string, Test> = {
  StringNotEquals: POSITIVE.StringEquals,
  StringNotEqualsIgnoreCase: POSITIVE.StringEqualsIgnoreCase,
  StringNotLike: POSITIVE.StringLike,
  NumericNotEquals: POSITIVE.NumericEquals,
  DateNotEquals: POSITIVE.DateEquals,
  NotIpAddress: POSITIVE.IpAddress,
  ArnNotEquals: POSITIVE.ArnEquals,
  ArnNotLike: POSITIVE.ArnLike,
};

export const CONDITION_OPERATORS: ReadonlySet<string> = new Set([
  ...Object.keys(POSITIVE),
  ...Object.keys(NEGATIVE),
  'Null',
]);

export function parseOperator(written: string): Operator {
  const [, quantifier, rest] = /^(?:(ForAllValues|ForAnyValue):)?(.*)$/s.exec(written) ?? [];
  const ifExists = rest.endsWith('IfExists') && rest !== 'IfExists';
  return {
    name: ifExists ? rest.slice(0, -'IfExists'.length) : rest,
    quantifier: quantifier === 'ForAllValues' ? 'all' : quantifier === 'ForAnyValue' ? 'any' : undefined,
    ifExists,
  };
}

/** @param variables whether policy variables are to be filled in: in documents of 2012 and later */
export function conditionHolds(
  { name, quantifier, ifExists }: Operator,
  key: string,
  wanted: readonly string[],
  context: Context,
  variables: boolean,
): boolean {
  const found = context.get(key.toLowerCase()) ?? [];
  if (name === 'Null') return wanted.some((value) => (value.toLowerCase() === 'true') === (found.length === 0));
  const filled = variables ? context : undefined;
  const positive = POSITIVE[name];
  const negative = NEGATIVE[name];
  const passes = (value: string): boolean =>
    positive !== undefined
      ? wanted.some((each) => positive(value, each, filled))
      : negative !== undefined && !wanted.some((each) => negative(value, each, filled));
  if (found.length === 0) {
    if (ifExists || quantifier === 'all') return true;
    // A key that is not there equals nothing: so it is unequal to everything.
    return quantifier === undefined && negative !== undefined;
  }
  if (quantifier === 'all') return found.every(passes);
  // Of several values without a quantifier, an unequal is one that none equals.
  if (quantifier === undefined && negative !== undefined) return found.every(passes);
  return found.some(passes);
}

function inNetwork(address: string, network: string): boolean {
  const plain = address.replace(/^::ffff:(?=\d+\.)/, '');
  const [base, prefix] = network.split('/');
  const family = isIP(base) === 6 ? 'ipv6' : 'ipv4';
  if (isIP(base) === 0 || isIP(plain) !== isIP(base)) return false;
  const bits = prefix === undefined ? (family === 'ipv6' ? 128 : 32) : Number(prefix);
  if (!Number.isInteger(bits) || bits < 0 || bits > (family === 'ipv6' ? 128 : 32)) return false;
  const list = new BlockList();
  list.addSubnet(base, bits, family);
  return list.check(plain, family);
}

function timeOf(text: string): number {
  return /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text);
}

/** Six fields; the last keeps its colons. */
function fieldsOf(arn: string): string[] {
  const fields = arn.split(':');
  return [...fields.slice(0, 5), fields.slice(5).join(':')];
}
