import type { DeregisterImageRequest, DeregisterImageResult, SnapshotReturnCodes } from '@aws-sdk/client-ec2';
import { removeTags } from '../../catalog/tags.ts';
import type { SnapshotId } from '../../types/ids.ts';
import { ApiError } from '../../wire/api-error.ts';
import { errors } from '../errors.ts';
import { readImageId } from '../identifiers.ts';
import type { Call, Operation } from '../operation.ts';
import { removeSnapshot } from '../snapshots/delete-snapshot.ts';
import { findImage, imageDevices } from './find-image.ts';

/** The image goes; its snapshots stay, unless they are to go too. */
export const deregisterImage: Operation<DeregisterImageRequest, DeregisterImageResult> = {
  honoured: ['ImageId', 'DeleteAssociatedSnapshots'],

  async run(input, call) {
    const imageId = readImageId(input.ImageId);
    await call.permit({ type: 'image', id: imageId });
    const { catalog } = call.services;
    const image = await findImage(call, imageId);
    if (image.account_id !== call.caller.accountId) throw errors.noImage(imageId);
    const devices = await imageDevices(catalog, imageId);
    await catalog.transaction().execute(async (transaction) => {
      await removeTags(transaction, imageId);
      await transaction.deleteFrom('images').where('image_id', '=', imageId).execute();
    });
    if (input.DeleteAssociatedSnapshots !== true) return { Return: true };
    const results: { SnapshotId: string; ReturnCode: SnapshotReturnCodes }[] = [];
    for (const { snapshot_id } of devices) {
      if (snapshot_id === null) continue;
      results.push({ SnapshotId: snapshot_id, ReturnCode: await removeToo(call, snapshot_id) });
    }
    return { Return: true, DeleteSnapshotResults: results };
  },
};

/** By the caller's own right to delete it: the image is gone already, so what goes wrong is told and stops nothing. */
async function removeToo(call: Call, snapshotId: SnapshotId): Promise<SnapshotReturnCodes> {
  try {
    await call.alsoPermit({ type: 'snapshot', id: snapshotId, action: 'ec2:DeleteSnapshot' });
    await removeSnapshot(call, snapshotId);
    return 'success';
  } catch (error) {
    switch (error instanceof ApiError ? error.code : undefined) {
      case 'UnauthorizedOperation':
        return 'missing-permissions';
      case 'InvalidSnapshot.InUse':
      case 'SnapshotLocked':
        return 'skipped';
      case undefined:
        call.services.log(
          'error',
          `${snapshotId} of a deregistered image was not deleted: ${(error as Error).message}`,
        );
        return 'internal-error';
      default:
        return 'client-error';
    }
  }
}
