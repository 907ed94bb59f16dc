import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { renderApi } from '../docs/render-api.ts';
import { OPERATIONS } from '../src/api/operations.ts';
import { ec2Operations } from '../src/wire/model.ts';

test('docs/api.md says what the code does: `npm run docs` writes it', () => {
  assert.equal(readFileSync(new URL('../docs/api.md', import.meta.url), 'utf8'), renderApi());
});

test('every name that an operation lists is one of the model', () => {
  const model = ec2Operations();
  for (const [name, operation] of Object.entries(OPERATIONS)) {
    const members = new Set([...(model.get(name)?.input.structIterator() ?? [])].map(([member]) => member));
    const listed: readonly string[] = [...operation.honoured, ...(operation.withoutEffect ?? [])];
    for (const member of listed) assert.ok(members.has(member), `${name} has no parameter ${member}`);
    for (const path of operation.refused ?? [])
      assert.ok(members.has(path.split('.')[0]), `${name} has no parameter ${path}`);
  }
});
