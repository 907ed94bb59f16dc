import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Together } from '../../src/catalog/together.ts';

test('questions of one turn are one, each gets its own answer, and later ones are asked anew', async () => {
  const asked: (readonly number[])[] = [];
  const squares = new Together(async (numbers: readonly number[]) => {
    asked.push(numbers);
    await turn();
    return numbers.map((number) => number * number);
  });
  const first = [3, 1, 3].map((number) => squares.ask(number));
  await turn();
  // The first are being answered: this one is not among them.
  const second = squares.ask(5);
  assert.deepEqual(await Promise.all([...first, second]), [9, 1, 9, 25]);
  assert.deepEqual(asked, [[3, 1, 3], [5]]);
});

test('a question that fails does not fail those that were asked with it', async () => {
  let questions = 0;
  const halves = new Together(async (numbers: readonly number[]) => {
    questions += 1;
    return numbers.map((number) => {
      if (number % 2 === 1) throw new Error(`${number} is odd`);
      return number / 2;
    });
  });
  const answers = await Promise.allSettled([2, 7, 8].map((number) => halves.ask(number)));
  assert.deepEqual(
    answers.map((answer) => (answer.status === 'fulfilled' ? answer.value : (answer.reason as Error).message)),
    [1, '7 is odd', 4],
  );
  assert.equal(questions, 4);
  await assert.rejects(halves.ask(9), /9 is odd/);
});

test('who may wait is waited for', async () => {
  const go = Promise.withResolvers<void>();
  const asked: (readonly string[])[] = [];
  const names = new Together(
    async (all: readonly string[]) => {
      asked.push(all);
      return all;
    },
    () => go.promise,
  );
  const first = names.ask('a');
  await turn();
  const second = names.ask('b');
  await turn();
  assert.deepEqual(asked, []);
  go.resolve();
  assert.deepEqual(await Promise.all([first, second]), ['a', 'b']);
  assert.deepEqual(asked, [['a', 'b']]);
});
