import { z } from 'zod';
import type { KeyReport } from '../keys/key-service.ts';
import { NOTHING, verb } from './verb.ts';

const Create = z.strictObject({ description: z.string().max(8192).default(''), alias: z.string().optional() });
const One = z.strictObject({ key: z.string() });
const Alias = z.strictObject({ key: z.string(), alias: z.string() });
const Enabled = z.strictObject({ key: z.string(), enabled: z.boolean() });

/** The KMS keys of the caller's account in its region: for `cleancut key …`. */
export const createKey = verb(Create, async (input, call): Promise<KeyReport> => {
  await call.permit();
  return call.services.keys.service.create(call.owner, input.description, input.alias);
});

export const listKeys = verb(NOTHING, async (_, call): Promise<{ keys: KeyReport[] }> => {
  await call.permit();
  return { keys: await call.services.keys.service.list(call.owner) };
});

export const aliasKey = verb(Alias, async (input, call): Promise<KeyReport> => {
  await call.permit();
  return call.services.keys.service.setAlias(input.key, call.owner, input.alias);
});

export const rotateKey = verb(One, async (input, call): Promise<KeyReport> => {
  await call.permit();
  return call.services.keys.service.rotate(input.key, call.owner);
});

export const enableKey = verb(Enabled, async (input, call): Promise<KeyReport> => {
  await call.permit();
  return call.services.keys.service.setEnabled(input.key, call.owner, input.enabled);
});
