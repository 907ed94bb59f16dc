import assert from 'node:assert/strict';
import { Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { CutPartners } from '../../src/dataplane/cut-partners.ts';
import { socketPair } from '../../src/dataplane/socket-channel.ts';

/** Two workers meet. @returns what ends the second one's end of it */
function meet(t: TestContext, a: CutPartners, numberOfA: number, b: CutPartners, numberOfB: number): () => void {
  const sockets = socketPair().map((fd) => new Socket({ fd, readable: true, writable: true }));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  a.meet(numberOfB, sockets[0]);
  b.meet(numberOfA, sockets[1]);
  return () => sockets[1].destroy();
}

/** Whether it is so by the time that everything which was sent has come. */
async function isSettled(promise: Promise<void>): Promise<boolean> {
  let settled = false;
  promise.then(
    () => {
      settled = true;
    },
    () => {
      settled = true;
    },
  );
  await new Promise((resolve) => setTimeout(resolve, 50));
  return settled;
}

test('each of three workers goes on when all three hold, whichever was first', async (t) => {
  const [a, b, c] = [new CutPartners(), new CutPartners(), new CutPartners()];
  meet(t, a, 0, b, 1);
  meet(t, a, 0, c, 2);
  meet(t, b, 1, c, 2);
  for (const token of ['cut-1', 'cut-2']) {
    const first = a.allHold(token, [1, 2]);
    const second = b.allHold(token, [0, 2]);
    assert.equal(await isSettled(first), false, `${token}: one of them does not hold yet`);
    assert.equal(await isSettled(second), false, `${token}: one of them does not hold yet`);
    await Promise.all([first, second, c.allHold(token, [0, 1])]);
  }
  // Of those that have a part in it, and no others.
  await Promise.all([a.allHold('cut-3', [2]), c.allHold('cut-3', [0])]);
  await b.allHold('cut-4', []);
});

test('what was said of an earlier cut, or by a worker that is gone, is not taken for this one', async (t) => {
  const [a, b, c] = [new CutPartners(), new CutPartners(), new CutPartners()];
  const end = meet(t, a, 0, b, 1);
  // The first cut comes to nothing: the second worker never holds for it. And the first has no part in the second.
  assert.equal(await isSettled(a.allHold('cut-1', [1])), false);
  assert.equal(await isSettled(b.allHold('cut-3', [0])), false);
  // The second worker has said that it holds for the third one, and dies. Another takes its place.
  end();
  meet(t, a, 0, c, 1);
  const third = a.allHold('cut-3', [1]);
  assert.equal(await isSettled(third), false, 'the new one does not hold');
  await Promise.all([third, c.allHold('cut-3', [0])]);
});

test('where another worker is gone, a cut fails at once', async (t) => {
  const [a, b] = [new CutPartners(), new CutPartners()];
  const end = meet(t, a, 0, b, 1);
  await Promise.all([a.allHold('cut-1', [1]), b.allHold('cut-1', [0])]);
  end();
  await new Promise((resolve) => setTimeout(resolve, 50));
  await assert.rejects(a.allHold('cut-2', [1]), { message: 'worker 1 cannot be reached' });
});
