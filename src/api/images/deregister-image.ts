import type { DeregisterImageRequest, DeregisterImageResult } from '@aws-sdk/client-ec2';
import { removeTags } from '../../catalog/tags.ts';
import { errors } from '../errors.ts';
import { readImageId } from '../identifiers.ts';
import type { Operation } from '../operation.ts';
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
    const results: { SnapshotId: string; ReturnCode: 'success' | 'internal-error' }[] = [];
    for (const { snapshot_id } of devices) {
      if (snapshot_id === null) continue;
      const ReturnCode = await removeSnapshot(call, snapshot_id).then(
        () => 'success' as const,
        () => 'internal-error' as const,
      );
      results.push({ SnapshotId: snapshot_id, ReturnCode });
    }
    return { Return: true, DeleteSnapshotResults: results };
  },
};
