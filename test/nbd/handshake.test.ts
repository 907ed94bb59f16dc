import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { Handshake } from '../../src/nbd/handshake.ts';
import { MAGIC_OPTION, OPTION } from '../../src/nbd/protocol.ts';

const EXPORTS = {
  list: async () => ['vol-0123456789abcdef0', 'vol-0123456789abcdef1'],
  describe: async () => undefined,
};

function lists(count: number): Buffer {
  const option = Buffer.alloc(16);
  option.writeBigUInt64BE(MAGIC_OPTION, 0);
  option.writeUInt32BE(OPTION.LIST, 8);
  return Buffer.concat([Buffer.from([0, 0, 0, 3]), ...Array.from({ length: count }, () => option)]);
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await setImmediate();
}

test('for a client that does not take what it asked for, nothing more is done until it does', async () => {
  let sent = 0;
  let taken = Promise.withResolvers<void>();
  const handshake = new Handshake(EXPORTS, () => {
    sent += 1;
    return taken.promise;
  });
  const fed = handshake.feed(lists(4));
  for (let answers = 1; answers <= 4; answers += 1) {
    await settle();
    assert.equal(sent, answers, 'each answer is one piece');
    const before = taken;
    taken = Promise.withResolvers<void>();
    before.resolve();
  }
  assert.deepEqual(await fed, { kind: 'more' });
});

test('others have their turn between the answers to many options in one piece', async () => {
  let [answers, turns, isOver] = [0, 0, false];
  const count = async (): Promise<void> => {
    while (!isOver) {
      turns += 1;
      await setImmediate();
    }
  };
  const counting = count();
  const handshake = new Handshake(EXPORTS, () => {
    answers += 1;
    return undefined;
  });
  await handshake.feed(lists(3_000));
  isOver = true;
  await counting;
  assert.equal(answers, 3_000);
  assert.ok(turns >= 2_900, `${turns} turns`);
});
