export type Matching = {
  ignoreCase: boolean;
  /** Policy variables (`${aws:username}`) stand for these; undefined takes them as they are written. */
  context: ReadonlyMap<string, readonly string[]> | undefined;
};

/**
 * Matches a policy's pattern: `*` is any characters, `?` is one, `${KEY}` is the value of a condition key (and matches
 * nothing where that has none), `${*}`, `${?}`, `${$}` are the characters themselves. Its cost grows with the product
 * of the two lengths at most, whatever the pattern.
 */
export function matchesPattern(pattern: string, value: string, { ignoreCase, context }: Matching): boolean {
  const tokens = tokensOf(pattern, ignoreCase, context);
  if (tokens === undefined) return false;
  const text = ignoreCase ? value.toLowerCase() : value;
  let token = 0;
  let at = 0;
  /** Where the latest `*` stands, and how much of the text it has taken so far. */
  let star = -1;
  let taken = 0;
  while (at < text.length) {
    if (token < tokens.length && (tokens[token] === ANY_ONE || tokens[token] === text[at])) {
      token += 1;
      at += 1;
    } else if (tokens[token] === ANY) {
      star = token;
      taken = at;
      token += 1;
    } else if (star !== -1) {
      taken += 1;
      at = taken;
      token = star + 1;
    } else {
      return false;
    }
  }
  return tokens.slice(token).every((each) => each === ANY);
}

const ANY = Symbol('*');
const ANY_ONE = Symbol('?');

/** @returns undefined where a variable has no value */
function tokensOf(
  pattern: string,
  ignoreCase: boolean,
  context: Matching['context'],
): (string | typeof ANY | typeof ANY_ONE)[] | undefined {
  const tokens: (string | typeof ANY | typeof ANY_ONE)[] = [];
  const literal = (text: string): void => {
    tokens.push(...(ignoreCase ? text.toLowerCase() : text).split(''));
  };
  for (const piece of context === undefined ? [pattern] : pattern.split(/(\$\{[^}]*\})/)) {
    const variable = context === undefined ? undefined : /^\$\{([^}]*)\}$/.exec(piece)?.[1];
    if (variable === undefined) {
      for (const character of piece.split('')) {
        if (character === '*') tokens.push(ANY);
        else if (character === '?') tokens.push(ANY_ONE);
        else literal(character);
      }
    } else if (variable === '*' || variable === '?' || variable === '$') {
      literal(variable);
    } else {
      const values = context?.get(variable.toLowerCase());
      if (values?.length !== 1) return undefined;
      literal(values[0]);
    }
  }
  return tokens;
}

/** Policy variables filled in, for operators that know no wildcards; undefined where one has no value. */
export function withVariables(
  text: string,
  context: ReadonlyMap<string, readonly string[]> | undefined,
): string | undefined {
  if (context === undefined) return text;
  let missing = false;
  const filled = text.replace(/\$\{([^}]*)\}/g, (_, variable: string) => {
    if (variable === '*' || variable === '?' || variable === '$') return variable;
    const values = context.get(variable.toLowerCase());
    if (values?.length !== 1) missing = true;
    return values?.[0] ?? '';
  });
  return missing ? undefined : filled;
}
