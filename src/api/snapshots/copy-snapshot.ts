import type { CopySnapshotRequest, CopySnapshotResult } from '@aws-sdk/client-ec2';
import { making, snapshotArn } from '../authorization.ts';
import { checkWish, planEncryption, protect, recordDataKey, willBeEncrypted } from '../encryption.ts';
import { errors } from '../errors.ts';
import { readSnapshotId } from '../identifiers.ts';
import type { Operation } from '../operation.ts';
import { readTagSpecifications } from '../tags/tag-rules.ts';
import { tagView } from '../tags/tag-view.ts';
import { assertReadable, findVisibleSnapshots } from './find-snapshot.ts';
import { insertSet, NO_VOLUME } from './new-set.ts';
import { checkDescription } from './snapshot-rules.ts';

/**
 * A snapshot of one's own with the bytes of another, of this or another region, one's own or shared. All regions of an
 * endpoint keep their snapshots in one object store, so a copy names the same manifest, and moves no data; only one
 * under another key does, in the background.
 */
export const copySnapshot: Operation<CopySnapshotRequest, CopySnapshotResult> = {
  honoured: ['SourceRegion', 'SourceSnapshotId', 'Description', 'Encrypted', 'KmsKeyId', 'TagSpecifications'],
  // The SDKs fill the first two in by themselves; a copy that moves no data takes no time to be limited.
  withoutEffect: ['DestinationRegion', 'PresignedUrl', 'CompletionDurationMinutes'],

  async run(input, call) {
    const sourceRegion = input.SourceRegion;
    if (sourceRegion === undefined) throw errors.missing('SourceRegion');
    const { regions, catalog, lifecycle, now } = call.services;
    if (!regions.has(sourceRegion)) {
      const known = [...regions.keys()].join(', ');
      throw errors.invalidValue('SourceRegion', sourceRegion, `This endpoint has the regions ${known}.`);
    }
    const sourceId = readSnapshotId(input.SourceSnapshotId, 'SourceSnapshotId');
    const wish = { encrypted: input.Encrypted, kmsKeyId: input.KmsKeyId };
    checkWish(wish);
    const description = checkDescription(input.Description ?? `[Copied ${sourceId} from ${sourceRegion}]`);
    const tags = readTagSpecifications(input.TagSpecifications, ['snapshot']).get('snapshot') ?? new Map();
    const there = call.in(sourceRegion);
    await call.permit({ type: 'snapshot', id: sourceId }, async () =>
      making(call, 'snapshot', tags, {
        'ec2:Owner': call.caller.accountId,
        'ec2:Encrypted': await willBeEncrypted(call, wish, sourceId),
        'ec2:SourceSnapshot': snapshotArn(sourceRegion, sourceId),
      }),
    );
    const snapshotId = await lifecycle.locks.hold([sourceId], async () => {
      const [source] = await findVisibleSnapshots(there, [sourceId]);
      assertReadable(source);
      const encryption = await protect(call, await planEncryption(call, wish, source));
      const { root, data_key_id } = source;
      const same = encryption.data_key_id === data_key_id;
      const bytes = same ? { root, dataBlocks: source.data_blocks } : undefined;
      const { snapshotIds } = await catalog.transaction().execute(async (transaction) => {
        await recordDataKey(transaction, encryption);
        const inserted = await insertSet(transaction, call, {
          instanceId: null,
          description,
          startedAt: now(),
          holdMilliseconds: 0,
          snapshots: [
            {
              volumeId: NO_VOLUME,
              volumeType: source.volume_type,
              sizeGiB: source.size_gib,
              device: undefined,
              tags,
              encryption,
              bytes,
            },
          ],
        });
        if (!same) {
          const copy = { snapshot_id: inserted.snapshotIds[0], source_root: root, source_key_id: data_key_id };
          await transaction.insertInto('snapshot_copies').values(copy).execute();
        }
        return inserted;
      });
      if (!same) lifecycle.copies.kick(snapshotIds[0]);
      return snapshotIds[0];
    });
    // The record goes to the bucket behind the answer; until then the copy is pending.
    void lifecycle.snapshots.completeStored(snapshotId);
    return { SnapshotId: snapshotId, Tags: tagView(tags) };
  },
};
