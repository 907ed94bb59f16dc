import type { CreateVolumeRequest, Volume } from '@aws-sdk/client-ec2';
import { putTags } from '../../catalog/tags.ts';
import { newId } from '../../types/ids.ts';
import { making, snapshotArn } from '../authorization.ts';
import { checkWish, planEncryption, protect, willBeEncrypted } from '../encryption.ts';
import { errors } from '../errors.ts';
import { checkSameRequest, readClientToken } from '../idempotency.ts';
import { readSnapshotId } from '../identifiers.ts';
import type { Call, Operation } from '../operation.ts';
import { readTagSpecifications } from '../tags/tag-rules.ts';
import { findVolume } from './find-volume.ts';
import { findRestorable, insertVolume, makeOrUndo, volumeSize } from './new-volume.ts';
import { checkMultiAttach, checkVolumeShape, DEFAULT_VOLUME_TYPE } from './volume-types.ts';
import { volumeView, withAttachments } from './volume-view.ts';

export const createVolume: Operation<CreateVolumeRequest, Volume> = {
  honoured: [
    'AvailabilityZone',
    'Size',
    'SnapshotId',
    'VolumeType',
    'Iops',
    'Throughput',
    'Encrypted',
    'KmsKeyId',
    'MultiAttachEnabled',
    'TagSpecifications',
    'ClientToken',
  ],

  async run(input, call) {
    const { now, catalog, lifecycle } = call.services;
    const zone = input.AvailabilityZone;
    if (zone === undefined) throw errors.missing('AvailabilityZone');
    if (!call.zones.includes(zone)) throw errors.unknownZone(zone, call.zones);
    const wish = { encrypted: input.Encrypted, kmsKeyId: input.KmsKeyId };
    checkWish(wish);
    const multiAttach = input.MultiAttachEnabled === true;
    checkMultiAttach(multiAttach, input.VolumeType);
    const sourceId =
      input.SnapshotId === undefined || input.SnapshotId === '' ? undefined : readSnapshotId(input.SnapshotId);
    if (sourceId === undefined && input.Size === undefined) throw errors.sizeOrSnapshot();
    const tags = readTagSpecifications(input.TagSpecifications, ['volume']).get('volume') ?? new Map();
    const clientToken = readClientToken(input.ClientToken, input);
    await call.permit(...(sourceId === undefined ? [] : [{ type: 'snapshot' as const, id: sourceId }]), async () =>
      making(call, 'volume', tags, {
        'ec2:AvailabilityZone': zone,
        'ec2:Encrypted': await willBeEncrypted(call, wish, sourceId),
        'ec2:ParentSnapshot': sourceId && snapshotArn(call.region, sourceId),
        'ec2:VolumeSize': input.Size,
        'ec2:VolumeType': input.VolumeType ?? DEFAULT_VOLUME_TYPE,
        'ec2:VolumeIops': input.Iops,
        'ec2:VolumeThroughput': input.Throughput,
      }),
    );
    const locks = [
      `token ${call.caller.accountId} ${input.ClientToken ?? newId('vol')}`,
      ...(sourceId ? [sourceId] : []),
    ];
    return lifecycle.locks.hold(locks, async () => {
      if (clientToken !== undefined) {
        const earlier = await catalog
          .selectFrom('volumes')
          .select(['volume_id', 'client_token_request'])
          .where('account_id', '=', call.caller.accountId)
          .where('region', '=', call.region)
          .where('client_token', '=', clientToken.token)
          .executeTakeFirst();
        if (earlier !== undefined) {
          checkSameRequest(clientToken, earlier.client_token_request);
          return viewOf(call, earlier.volume_id);
        }
      }
      const source = sourceId === undefined ? undefined : await findRestorable(call, sourceId);
      const shape = checkVolumeShape({
        type: input.VolumeType,
        sizeGiB: volumeSize(input.Size, source),
        iops: input.Iops,
        throughput: input.Throughput,
      });
      const protection = await protect(call, await planEncryption(call, wish, source));
      const volumeId = newId('vol');
      const { accountId } = call.caller;
      await catalog.transaction().execute(async (transaction) => {
        await insertVolume(transaction, {
          volumeId,
          accountId,
          region: call.region,
          shape,
          multiAttach,
          zone,
          source,
          protection,
          createdAt: now(),
          clientToken,
        });
        await putTags(
          transaction,
          { resourceId: volumeId, resourceType: 'volume', accountId, region: call.region },
          tags,
        );
      });
      await makeOrUndo(call, volumeId, 'The volume');
      return viewOf(call, volumeId);
    });
  },
};

async function viewOf(call: Call, volumeId: Parameters<typeof findVolume>[1]): Promise<Volume> {
  const [volume] = await withAttachments(call.services.catalog, [await findVolume(call, volumeId)]);
  return volumeView(volume);
}
