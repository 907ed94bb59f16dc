import type { ImageId, InstanceId, SnapshotId, VolumeId } from '../types/ids.ts';
import { parseId } from '../types/ids.ts';
import { errors } from './errors.ts';

/** The first id that is of none of the rows. */
export function firstMissing<Id, Row>(
  ids: readonly Id[],
  rows: readonly Row[],
  idOf: (row: Row) => Id,
): Id | undefined {
  const found = new Set(rows.map(idOf));
  return ids.find((id) => !found.has(id));
}

/** Ids as they come in requests. @throws ApiError, the one that EC2 has for that kind of id */
export function readInstanceId(text: string | undefined, parameter = 'InstanceId'): InstanceId {
  if (text === undefined) throw errors.missing(parameter);
  const id = parseId('i', text);
  if (id === undefined) throw errors.malformedInstance(text);
  return id;
}

export function readVolumeId(text: string | undefined, parameter = 'VolumeId'): VolumeId {
  if (text === undefined) throw errors.missing(parameter);
  const id = parseId('vol', text);
  if (id === undefined) throw errors.malformedVolume(text);
  return id;
}

export function readSnapshotId(text: string | undefined, parameter = 'SnapshotId'): SnapshotId {
  if (text === undefined) throw errors.missing(parameter);
  const id = parseId('snap', text);
  if (id === undefined) throw errors.malformedSnapshot(text);
  return id;
}

export function readImageId(text: string | undefined, parameter = 'ImageId'): ImageId {
  if (text === undefined) throw errors.missing(parameter);
  const id = parseId('ami', text);
  if (id === undefined) throw errors.malformedImage(text);
  return id;
}
