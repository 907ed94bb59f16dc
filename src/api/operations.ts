import { createImage } from './images/create-image.ts';
import { deregisterImage } from './images/deregister-image.ts';
import { describeImages } from './images/describe-images.ts';
import { registerImage } from './images/register-image.ts';
import { describeInstanceStatus } from './instances/describe-instance-status.ts';
import { describeInstances } from './instances/describe-instances.ts';
import { describeInstanceAttribute, modifyInstanceAttribute } from './instances/instance-attribute.ts';
import {
  describeInstanceCreditSpecifications,
  describeInstanceTypeOfferings,
  describeInstanceTypes,
} from './instances/instance-types.ts';
import { rebootInstances } from './instances/reboot-instances.ts';
import { createReplaceRootVolumeTask, describeReplaceRootVolumeTasks } from './instances/replace-root-volume.ts';
import { runInstances } from './instances/run-instances.ts';
import { startInstances } from './instances/start-instances.ts';
import { stopInstances } from './instances/stop-instances.ts';
import { terminateInstances } from './instances/terminate-instances.ts';
import type { AnyOperation } from './operation.ts';
import { describeAvailabilityZones } from './regions/describe-availability-zones.ts';
import { describeRegions } from './regions/describe-regions.ts';
import { describeAccountAttributes, describeSecurityGroups, describeSubnets, describeVpcs } from './regions/network.ts';
import {
  disableEbsEncryptionByDefault,
  enableEbsEncryptionByDefault,
  getEbsDefaultKmsKeyId,
  getEbsEncryptionByDefault,
  modifyEbsDefaultKmsKeyId,
  resetEbsDefaultKmsKeyId,
} from './settings/ebs-encryption.ts';
import {
  disableSnapshotBlockPublicAccess,
  enableSnapshotBlockPublicAccess,
  getSnapshotBlockPublicAccessState,
} from './settings/snapshot-block-public-access.ts';
import { copySnapshot } from './snapshots/copy-snapshot.ts';
import { createSnapshot } from './snapshots/create-snapshot.ts';
import { createSnapshots } from './snapshots/create-snapshots.ts';
import { deleteSnapshot } from './snapshots/delete-snapshot.ts';
import { describeLockedSnapshots } from './snapshots/describe-locked-snapshots.ts';
import { describeSnapshotTierStatus } from './snapshots/describe-snapshot-tier-status.ts';
import { describeSnapshots } from './snapshots/describe-snapshots.ts';
import { lockSnapshot, unlockSnapshot } from './snapshots/lock-snapshot.ts';
import {
  describeSnapshotAttribute,
  modifySnapshotAttribute,
  resetSnapshotAttribute,
} from './snapshots/snapshot-attribute.ts';
import { modifySnapshotTier, restoreSnapshotTier } from './snapshots/snapshot-tier.ts';
import { listSnapshotsInRecycleBin, restoreSnapshotFromRecycleBin } from './snapshots/snapshots-in-recycle-bin.ts';
import { createTags } from './tags/create-tags.ts';
import { deleteTags } from './tags/delete-tags.ts';
import { describeTags } from './tags/describe-tags.ts';
import { attachVolume } from './volumes/attach-volume.ts';
import { createVolume } from './volumes/create-volume.ts';
import { deleteVolume } from './volumes/delete-volume.ts';
import { describeVolumeStatus } from './volumes/describe-volume-status.ts';
import { describeVolumes } from './volumes/describe-volumes.ts';
import { describeVolumesModifications } from './volumes/describe-volumes-modifications.ts';
import { detachVolume } from './volumes/detach-volume.ts';

import { modifyVolume } from './volumes/modify-volume.ts';
import { describeVolumeAttribute, modifyVolumeAttribute } from './volumes/volume-attribute.ts';

/** Every operation of EC2's that is built, by the name under which it is called. */
export const OPERATIONS: Readonly<Record<string, AnyOperation>> = {
  AttachVolume: attachVolume,
  CopySnapshot: copySnapshot,
  CreateSnapshot: createSnapshot,
  CreateSnapshots: createSnapshots,
  CreateImage: createImage,
  CreateReplaceRootVolumeTask: createReplaceRootVolumeTask,
  CreateTags: createTags,
  DeregisterImage: deregisterImage,
  DescribeReplaceRootVolumeTasks: describeReplaceRootVolumeTasks,
  RegisterImage: registerImage,
  CreateVolume: createVolume,
  DeleteSnapshot: deleteSnapshot,
  DeleteTags: deleteTags,
  DeleteVolume: deleteVolume,
  DisableEbsEncryptionByDefault: disableEbsEncryptionByDefault,
  DisableSnapshotBlockPublicAccess: disableSnapshotBlockPublicAccess,
  EnableEbsEncryptionByDefault: enableEbsEncryptionByDefault,
  EnableSnapshotBlockPublicAccess: enableSnapshotBlockPublicAccess,
  GetEbsDefaultKmsKeyId: getEbsDefaultKmsKeyId,
  GetEbsEncryptionByDefault: getEbsEncryptionByDefault,
  GetSnapshotBlockPublicAccessState: getSnapshotBlockPublicAccessState,
  ModifyEbsDefaultKmsKeyId: modifyEbsDefaultKmsKeyId,
  ResetEbsDefaultKmsKeyId: resetEbsDefaultKmsKeyId,
  DescribeAvailabilityZones: describeAvailabilityZones,
  DescribeImages: describeImages,
  DescribeLockedSnapshots: describeLockedSnapshots,
  DescribeAccountAttributes: describeAccountAttributes,
  DescribeInstanceAttribute: describeInstanceAttribute,
  DescribeInstanceCreditSpecifications: describeInstanceCreditSpecifications,
  DescribeInstanceStatus: describeInstanceStatus,
  DescribeInstanceTypeOfferings: describeInstanceTypeOfferings,
  DescribeInstanceTypes: describeInstanceTypes,
  DescribeInstances: describeInstances,
  DescribeSecurityGroups: describeSecurityGroups,
  DescribeSubnets: describeSubnets,
  DescribeVpcs: describeVpcs,
  ModifyInstanceAttribute: modifyInstanceAttribute,
  RebootInstances: rebootInstances,
  DescribeRegions: describeRegions,
  DescribeSnapshotAttribute: describeSnapshotAttribute,
  DescribeSnapshotTierStatus: describeSnapshotTierStatus,
  DescribeSnapshots: describeSnapshots,
  DescribeTags: describeTags,
  DescribeVolumeAttribute: describeVolumeAttribute,
  DescribeVolumeStatus: describeVolumeStatus,
  DescribeVolumes: describeVolumes,
  DescribeVolumesModifications: describeVolumesModifications,
  DetachVolume: detachVolume,
  ModifySnapshotTier: modifySnapshotTier,
  ModifyVolume: modifyVolume,
  ModifyVolumeAttribute: modifyVolumeAttribute,
  ListSnapshotsInRecycleBin: listSnapshotsInRecycleBin,
  LockSnapshot: lockSnapshot,
  UnlockSnapshot: unlockSnapshot,
  ModifySnapshotAttribute: modifySnapshotAttribute,
  ResetSnapshotAttribute: resetSnapshotAttribute,
  RestoreSnapshotFromRecycleBin: restoreSnapshotFromRecycleBin,
  RestoreSnapshotTier: restoreSnapshotTier,
  RunInstances: runInstances,
  StartInstances: startInstances,
  StopInstances: stopInstances,
  TerminateInstances: terminateInstances,
};
