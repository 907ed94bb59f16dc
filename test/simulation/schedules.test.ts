import { test } from 'node:test';
import { simulateHalf } from './simulate.ts';

test('no schedule of writes, cuts, uploads, restores, collections, kills and power losses breaks a promise', (t) =>
  simulateHalf(t));
