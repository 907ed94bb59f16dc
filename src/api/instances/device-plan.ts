import type { BlockDeviceMapping, EbsBlockDevice } from '@aws-sdk/client-ec2';
import type { ImageDeviceRow, SnapshotRow } from '../../catalog/schema.ts';
import { checkWish, type EncryptionPlan, planEncryption } from '../encryption.ts';
import { errors } from '../errors.ts';
import { readSnapshotId } from '../identifiers.ts';
import type { Call } from '../operation.ts';
import { checkDeviceName } from '../volumes/device-names.ts';
import { findRestorable, volumeSize } from '../volumes/new-volume.ts';
import { checkVolumeShape, DEFAULT_VOLUME_TYPE, type VolumeShape } from '../volumes/volume-types.ts';

/** What a mapping may not say here. */
export const REFUSED_IN_MAPPINGS = [
  'AvailabilityZone',
  'AvailabilityZoneId',
  'EbsCardIndex',
  'OutpostArn',
  'VolumeInitializationRate',
].map((member) => `BlockDeviceMappings.Ebs.${member}`);

/** A volume that an instance begins with. */
export type PlannedDevice = {
  deviceName: string;
  shape: VolumeShape;
  source: SnapshotRow | undefined;
  encryption: EncryptionPlan;
  deleteOnTermination: boolean;
};

/** The form of the mappings, before anything is looked up. @throws ApiError */
export function checkMappings(mappings: readonly BlockDeviceMapping[] | undefined): void {
  const names = new Set<string>();
  for (const mapping of mappings ?? []) {
    const name = checkDeviceName(mapping.DeviceName);
    if (names.has(name)) {
      throw errors.invalidValue('BlockDeviceMapping.DeviceName', name, 'The same device may not be mapped twice.');
    }
    names.add(name);
    checkWish({ encrypted: mapping.Ebs?.Encrypted, kmsKeyId: mapping.Ebs?.KmsKeyId });
    if (mapping.VirtualName !== undefined) {
      throw errors.unsupported(`VirtualName=${mapping.VirtualName}: there are no instance store volumes here.`);
    }
  }
}

/** The image's devices, changed and added to by the mappings of the request. @throws ApiError */
export async function planDevices(
  call: Call,
  imageDevices: readonly ImageDeviceRow[],
  mappings: readonly BlockDeviceMapping[] | undefined,
): Promise<PlannedDevice[]> {
  const byName = new Map((mappings ?? []).map((mapping) => [mapping.DeviceName, mapping]));
  const plan: PlannedDevice[] = [];
  for (const device of imageDevices) {
    const mapping = byName.get(device.device_name);
    byName.delete(device.device_name);
    if (mapping?.NoDevice !== undefined) continue;
    plan.push(await planDevice(call, device.device_name, mapping?.Ebs, device));
  }
  for (const [name, mapping] of byName) {
    if (name === undefined || mapping.NoDevice !== undefined) continue;
    if (mapping.Ebs === undefined) throw errors.missing(`BlockDeviceMapping.Ebs (of ${name})`);
    plan.push(await planDevice(call, name, mapping.Ebs, undefined));
  }
  return plan;
}

/** A device's type and rates: as asked, or as the image has them. */
export function ratesOf(
  asked: EbsBlockDevice | undefined,
  image: ImageDeviceRow | undefined,
): { type: string; iops: number | undefined; throughput: number | undefined } {
  const type = asked?.VolumeType ?? image?.volume_type ?? DEFAULT_VOLUME_TYPE;
  // Rates of another type mean nothing for this one.
  const rates = image?.volume_type === type ? image : undefined;
  return {
    type,
    iops: asked?.Iops ?? rates?.iops ?? undefined,
    throughput: asked?.Throughput ?? rates?.throughput ?? undefined,
  };
}

async function planDevice(
  call: Call,
  deviceName: string,
  asked: EbsBlockDevice | undefined,
  image: ImageDeviceRow | undefined,
): Promise<PlannedDevice> {
  const sourceId =
    asked?.SnapshotId === undefined ? (image?.snapshot_id ?? undefined) : readSnapshotId(asked.SnapshotId);
  const source = sourceId === undefined ? undefined : await findRestorable(call, sourceId);
  const sizeGiB = volumeSize(asked?.VolumeSize ?? image?.size_gib, source);
  return {
    deviceName,
    shape: checkVolumeShape({ sizeGiB, ...ratesOf(asked, image) }),
    source,
    encryption: await planEncryption(call, { encrypted: asked?.Encrypted, kmsKeyId: asked?.KmsKeyId }, source),
    deleteOnTermination: asked?.DeleteOnTermination ?? (image === undefined || image.delete_on_termination === 1),
  };
}
