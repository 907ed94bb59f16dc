import { ApiError } from '../wire/api-error.ts';

/** Of a pending snapshot, the days of its lock do not count yet. */
function lockEnd(expiresAt: number | undefined): string {
  return expiresAt === undefined ? 'and not complete yet' : `until ${new Date(expiresAt).toISOString()}`;
}

/** Every error of EC2's that the operations answer: code, status and message, side by side. */
export const errors = {
  dryRun: () => new ApiError('DryRunOperation', 'Request would have succeeded, but DryRun flag is set.', 412),
  unauthorized: (user: string, action: string, resource: string, explicit: boolean, encoded: string) =>
    new ApiError(
      'UnauthorizedOperation',
      `You are not authorized to perform this operation. User: ${user} is not authorized to perform: ${action} on resource: ${resource} ${
        explicit ? 'with an explicit deny in' : 'because'
      } ${explicit ? 'an identity-based policy' : `no identity-based policy allows the ${action} action`}. Encoded authorization failure message: ${encoded}`,
      403,
    ),
  unsupportedParameter: (name: string) =>
    new ApiError('UnsupportedOperation', `The parameter ${name} is not supported here.`),
  unsupported: (message: string) => new ApiError('UnsupportedOperation', message),
  missing: (name: string) => new ApiError('MissingParameter', `The request must contain the parameter ${name}`),
  invalidValue: (name: string, value: unknown, reason: string) =>
    new ApiError('InvalidParameterValue', `Value (${String(value)}) for parameter ${name} is invalid. ${reason}`),
  reservedTag: (key: string) =>
    errors.invalidValue('Tag.Key', key, "Tag keys starting with 'aws:' are reserved for internal use"),
  combination: (message: string) => new ApiError('InvalidParameterCombination', message),
  dependency: (name: string, needs: string) =>
    new ApiError('InvalidParameterDependency', `The parameter ${name} requires the parameter ${needs} to be set.`),
  idempotencyMismatch: (token: string) =>
    new ApiError(
      'IdempotentParameterMismatch',
      `The client token '${token}' was used before with other parameters than in this request.`,
    ),
  invalidFilter: (name: string) => new ApiError('InvalidParameterValue', `The filter '${name}' is invalid`),
  invalidToken: (token: string) =>
    new ApiError(
      'InvalidParameterValue',
      `Value (${token}) for parameter nextToken is invalid. It is not one that this operation gave.`,
    ),

  malformedInstance: (id: string) => new ApiError('InvalidInstanceID.Malformed', `Invalid id: "${id}"`),
  noInstance: (id: string) => new ApiError('InvalidInstanceID.NotFound', `The instance ID '${id}' does not exist`),
  instanceState: (id: string, state: string, wanted: string) =>
    new ApiError('IncorrectInstanceState', `The instance '${id}' is in the '${state}' state; it must be ${wanted}.`),

  terminationProtected: (id: string) =>
    new ApiError(
      'OperationNotPermitted',
      `The instance '${id}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.`,
    ),

  malformedVolume: (id: string) =>
    new ApiError('InvalidParameterValue', `Value (${id}) for parameter volumeId is invalid. Expected: 'vol-...'.`),
  noVolume: (id: string) => new ApiError('InvalidVolume.NotFound', `The volume '${id}' does not exist.`),
  volumeState: (id: string, state: string) =>
    new ApiError('IncorrectState', `Volume '${id}' is in the '${state}' state.`),
  volumeInUse: (id: string, instance: string) =>
    new ApiError('VolumeInUse', `Volume ${id} is currently attached to ${instance}`),
  alreadyAttached: (id: string) => new ApiError('VolumeInUse', `${id} is already attached to an instance`),
  noModification: (id: string) =>
    new ApiError('InvalidVolumeModification.NotFound', `Modification for volume '${id}' does not exist.`),
  noAttachment: (id: string, instance: string, device: string | undefined) =>
    new ApiError(
      'InvalidAttachment.NotFound',
      `The volume '${id}' is not attached to instance '${instance}'${device === undefined ? '' : ` as device '${device}'`}.`,
    ),
  zoneMismatch: (id: string, zone: string, instanceZone: string) =>
    new ApiError(
      'InvalidVolume.ZoneMismatch',
      `The volume '${id}' is in ${zone}, the instance in ${instanceZone}: both must be in the same zone.`,
    ),
  rootOfRunning: (id: string) =>
    new ApiError('OperationNotPermitted', `Unable to detach root volume '${id}' from a running instance`),
  deviceInUse: (device: string) =>
    new ApiError(
      'InvalidParameterValue',
      `Invalid value '${device}' for unixDevice. Attachment point ${device} is already in use`,
    ),
  invalidDevice: (device: string) =>
    new ApiError(
      'InvalidParameterValue',
      `Value (${device}) for parameter device is invalid. ${device} is not a valid EBS device name.`,
    ),
  sizeOrSnapshot: () => new ApiError('MissingParameter', 'The request must contain the parameter size/snapshot'),
  smallerThanSnapshot: (sizeGiB: number, snapshot: string, least: number) =>
    new ApiError(
      'InvalidParameterValue',
      `Volume of size ${sizeGiB}GB is smaller than snapshot '${snapshot}', expect size >= ${least}GB`,
    ),
  unknownZone: (zone: string, zones: readonly string[]) =>
    new ApiError(
      'InvalidParameterValue',
      `Value (${zone}) for parameter availabilityZone is invalid. Subnets can currently only be created in the following availability zones: ${zones.join(', ')}.`,
    ),
  noSpace: (message: string) => new ApiError('InsufficientVolumeCapacity', message, 500),

  keyNotFound: (message: string) => new ApiError('InvalidKMSKey.NotFound', `The KMS key was not found: ${message}.`),
  keyState: (message: string) =>
    new ApiError('InvalidKMSKey.InvalidState', `The KMS key provided is in an incorrect state: ${message}.`),
  publicEncrypted: (id: string) =>
    new ApiError('OperationNotPermitted', `The snapshot '${id}' is encrypted: it cannot be shared publicly.`),
  sharedDefaultKey: (id: string) =>
    new ApiError(
      'OperationNotPermitted',
      `The snapshot '${id}' is encrypted with the account's default key: only one under a key of its own can be shared.`,
    ),
  publicBlocked: (id: string, state: string) =>
    new ApiError(
      'OperationNotPermitted',
      `The snapshot '${id}' cannot be made public: the account's block public access state is ${state}.`,
    ),

  malformedSnapshot: (id: string) =>
    new ApiError('InvalidSnapshotID.Malformed', `The snapshot ID '${id}' is not valid`),
  noSnapshot: (id: string) => new ApiError('InvalidSnapshot.NotFound', `The snapshot '${id}' does not exist.`),
  snapshotState: (id: string, state: string) =>
    new ApiError('IncorrectState', `The snapshot '${id}' is in the '${state}' state; it must be completed.`),
  snapshotArchived: (id: string) =>
    new ApiError(
      'IncorrectState',
      `The snapshot '${id}' is in the archive tier; it must be restored to the standard tier (RestoreSnapshotTier).`,
    ),
  notArchived: (id: string) => new ApiError('IncorrectState', `The snapshot '${id}' is not in the archive tier.`),
  beingMoved: (id: string, operation: string) =>
    new ApiError('IncorrectState', `The snapshot '${id}' is being moved already (${operation} in progress).`),
  snapshotFailed: (id: string) => new ApiError('IncorrectState', `The snapshot '${id}' is in the 'error' state.`),
  snapshotLocked: (id: string, state: string, expiresAt: number | undefined) =>
    new ApiError(
      'SnapshotLocked',
      `The snapshot '${id}' is locked (${state}) ${lockEnd(expiresAt)}: it cannot be deleted.`,
    ),
  notLocked: (id: string) => new ApiError('IncorrectState', `The snapshot '${id}' is not locked.`),
  lockedForGood: (id: string, expiresAt: number | undefined) =>
    new ApiError(
      'OperationNotPermitted',
      `The snapshot '${id}' is locked in compliance mode ${lockEnd(expiresAt)}: the lock can only be made longer, in the same mode and without CoolOffPeriod.`,
    ),
  notInBin: (id: string) => new ApiError('InvalidSnapshot.NotFound', `The snapshot '${id}' is not in the Recycle Bin.`),
  snapshotInUse: (id: string, image: string) =>
    new ApiError('InvalidSnapshot.InUse', `The snapshot ${id} is currently in use by ${image}`),
  tooManyPending: (volume: string, most: number) =>
    new ApiError(
      'ConcurrentSnapshotLimitExceeded',
      `Maximum allowed in-progress snapshots for a single volume exceeded. Volume ${volume} has ${most} already.`,
    ),
  snapshotsTooOften: (volume: string, seconds: number) =>
    new ApiError(
      'SnapshotCreationPerVolumeRateExceeded',
      `The maximum per volume CreateSnapshot request rate has been exceeded. Use an increasing or variable sleep interval between requests. Volume ${volume} had a snapshot less than ${seconds} s ago.`,
    ),
  snapshotLimit: (most: number) =>
    new ApiError('SnapshotLimitExceeded', `You have reached your limit of ${most} snapshots.`),
  cutFailed: (message: string) => new ApiError('InternalError', `No snapshot was created: ${message}`, 500),

  malformedImage: (id: string) => new ApiError('InvalidAMIID.Malformed', `Invalid id: "${id}" (expecting "ami-...")`),
  malformedImageName: (name: string) =>
    new ApiError(
      'InvalidAMIName.Malformed',
      `Invalid image name '${name}': 3 to 128 letters, digits, spaces and ( ) . / - ' @ [ ] _.`,
    ),
  duplicateImageName: (name: string, image: string) =>
    new ApiError('InvalidAMIName.Duplicate', `AMI name ${name} is already in use by AMI ${image}`),
  imageUnavailable: (id: string, state: string) =>
    new ApiError('InvalidAMIID.Unavailable', `The image ID '${id}' is not available: it is ${state}.`),
  noImage: (id: string) => new ApiError('InvalidAMIID.NotFound', `The image id '[${id}]' does not exist`),

  unknownResource: (id: string) => new ApiError('InvalidID', `The ID '${id}' is not valid`),
  tooManyTags: () => new ApiError('TagLimitExceeded', 'The maximum number of Tags for a resource has been reached.'),
};
