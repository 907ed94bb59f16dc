import { z } from 'zod';
import type { Call } from '../api/operation.ts';
import type { KeyOwner, KeyReport } from '../keys/key-service.ts';
import { NOTHING, verb } from './verb.ts';

const Create = z.strictObject({ description: z.string().max(8192).default(''), alias: z.string().optional() });
const One = z.strictObject({ key: z.string() });
const Alias = z.strictObject({ key: z.string(), alias: z.string() });
const Enabled = z.strictObject({ key: z.string(), enabled: z.boolean() });

/** The KMS keys of the caller's account in its region: for `cleancut key …`. */
export const createKey = verb(Create, async (input, call): Promise<KeyReport> => {
  await call.permit();
  return call.services.keys.service.create(ownerOf(call), input.description, input.alias);
});

export const listKeys = verb(NOTHING, async (_, call): Promise<{ keys: KeyReport[] }> => {
  await call.permit();
  return { keys: await call.services.keys.service.list(ownerOf(call)) };
});

export const aliasKey = verb(Alias, async (input, call): Promise<KeyReport> => {
  await call.permit();
  return call.services.keys.service.setAlias(input.key, ownerOf(call), input.alias);
});

export const rotateKey = verb(One, async (input, call): Promise<KeyReport> => {
  await call.permit();
  return call.services.keys.service.rotate(input.key, ownerOf(call));
});

export const enableKey = verb(Enabled, async (input, call): Promise<KeyReport> => {
  await call.permit();
  return call.services.keys.service.setEnabled(input.key, ownerOf(call), input.enabled);
});

function ownerOf(call: Call): KeyOwner {
  return { accountId: call.caller.accountId, region: call.region };
}
