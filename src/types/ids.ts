import { randomBytes } from 'node:crypto';

declare const brand: unique symbol;
/** A value that only its parser can make: two ids of different kinds never mix. */
export type Branded<Base, Name extends string> = Base & { readonly [brand]: Name };

export type VolumeId = Branded<string, 'VolumeId'>;
export type SnapshotId = Branded<string, 'SnapshotId'>;
export type InstanceId = Branded<string, 'InstanceId'>;
export type ImageId = Branded<string, 'ImageId'>;
export type ReservationId = Branded<string, 'ReservationId'>;
/** Cleancut's own: a set of snapshots cut at one instant. EC2's API has no name for it. */
export type SetId = Branded<string, 'SetId'>;
/** Twelve digits. */
export type AccountId = Branded<string, 'AccountId'>;

export type IdOf = {
  vol: VolumeId;
  snap: SnapshotId;
  i: InstanceId;
  ami: ImageId;
  r: ReservationId;
  set: SetId;
};

/**
 * Reads an id: a prefix, a dash, and 17 lower-case hex digits (8 in old ones).
 * @returns undefined when the text has another form; the caller knows which AWS error that is
 */
export function parseId<Prefix extends keyof IdOf>(prefix: Prefix, text: string): IdOf[Prefix] | undefined {
  const digits = text.startsWith(`${prefix}-`) ? text.slice(prefix.length + 1) : '';
  return /^([0-9a-f]{8}|[0-9a-f]{17})$/.test(digits) ? (text as IdOf[Prefix]) : undefined;
}

/** Reads an id that this program wrote itself; another form is a broken invariant, not bad input. */
export function knownId<Prefix extends keyof IdOf>(prefix: Prefix, text: string): IdOf[Prefix] {
  const id = parseId(prefix, text);
  if (id === undefined) throw new Error(`expected an id that begins ${prefix}-, found '${text}'`);
  return id;
}

export function newId<Prefix extends keyof IdOf>(prefix: Prefix): IdOf[Prefix] {
  return `${prefix}-${randomBytes(9).toString('hex').slice(0, 17)}` as IdOf[Prefix];
}

export function parseAccountId(text: string): AccountId | undefined {
  return /^\d{12}$/.test(text) ? (text as AccountId) : undefined;
}
