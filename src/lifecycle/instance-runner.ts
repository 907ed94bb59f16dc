import { allOf } from '../types/all-of.ts';
import type { InstanceId, VolumeId } from '../types/ids.ts';
import type { LifecycleOptions } from './options.ts';
import type { VolumeRunner } from './volume-runner.ts';

/** Brings instances up and down: their volumes, and the exports of these. */
export class InstanceRunner {
  readonly #options: LifecycleOptions;
  readonly #volumes: VolumeRunner;

  constructor(options: LifecycleOptions, volumes: VolumeRunner) {
    this.#options = options;
    this.#volumes = volumes;
  }

  /** Brings an instance that the catalog has as `pending` up: its volumes made and exported. */
  async bringUp(instanceId: InstanceId): Promise<void> {
    const { catalog, dataPlane } = this.#options;
    const volumes = await catalog
      .selectFrom('attachments')
      .innerJoin('volumes', 'volumes.volume_id', 'attachments.volume_id')
      .select(['volumes.volume_id', 'volumes.state'])
      .where('attachments.instance_id', '=', instanceId)
      .orderBy('attachments.device_name')
      .execute();
    const missing = volumes.filter((volume) => volume.state === 'creating').map((volume) => volume.volume_id);
    if (missing.length > 0) await this.#volumes.create(missing);
    await allOf(volumes, ({ volume_id }) => dataPlane.exportVolume(volume_id));
    await this.#setState(instanceId, 'running');
  }

  /** Stops an instance that the catalog has as `stopping`: its exports end, all that was written is durable. */
  async bringDown(instanceId: InstanceId): Promise<void> {
    await this.#endExports(instanceId);
    await this.#setState(instanceId, 'stopped');
  }

  /** Takes an instance that the catalog has as `shutting-down` apart; volumes marked so go with it. */
  async takeApart(instanceId: InstanceId): Promise<void> {
    const { catalog, now } = this.#options;
    await this.#endExports(instanceId);
    const attached = await catalog
      .selectFrom('attachments')
      .selectAll()
      .where('instance_id', '=', instanceId)
      .execute();
    await catalog.transaction().execute(async (transaction) => {
      await transaction.deleteFrom('attachments').where('instance_id', '=', instanceId).execute();
      for (const { volume_id, delete_on_termination } of attached) {
        const other = await transaction
          .selectFrom('attachments')
          .select('instance_id')
          .where('volume_id', '=', volume_id)
          .executeTakeFirst();
        // Attached elsewhere too: it stays as it is.
        if (other !== undefined) continue;
        const state = delete_on_termination === 1 ? 'deleting' : 'available';
        let update = transaction.updateTable('volumes').set({ state }).where('volume_id', '=', volume_id);
        // One that is still to be made (a start has found it so) is so without its instance, too.
        if (state === 'available') update = update.where('state', '!=', 'creating');
        await update.execute();
      }
      await transaction
        .updateTable('instances')
        .set({ state: 'terminated', terminated_at: now().toISOString() })
        .where('instance_id', '=', instanceId)
        .execute();
    });
    await this.#volumes.reap(attached.map(({ volume_id }) => volume_id));
  }

  /** Whatever the catalog has of the instance, it is to be so: what was begun is finished, what is missing exported. */
  async settle(instanceId: InstanceId): Promise<void> {
    const { catalog, dataPlane } = this.#options;
    const instance = await catalog
      .selectFrom('instances')
      .select('state')
      .where('instance_id', '=', instanceId)
      .executeTakeFirst();
    switch (instance?.state) {
      case 'pending':
        return this.bringUp(instanceId);
      case 'stopping':
        return this.bringDown(instanceId);
      case 'shutting-down':
        return this.takeApart(instanceId);
      case 'running': {
        const missing = (await this.#attached(instanceId)).filter((id) => dataPlane.exported(id) === undefined);
        await allOf(missing, (volumeId) => dataPlane.exportVolume(volumeId));
        return;
      }
      case 'stopped':
      case 'terminated':
      case undefined:
        return;
      default:
        instance?.state satisfies undefined;
    }
  }

  /**
   * Ends a volume's export for one instance. Where it is attached to another one too (multi-attach) that runs, or comes up
   * just now, it goes on: connections belong to a volume, and cannot be told apart by instance.
   */
  async endExport(volumeId: VolumeId, instanceId: InstanceId): Promise<void> {
    const other = await this.#options.catalog
      .selectFrom('attachments')
      .innerJoin('instances', 'instances.instance_id', 'attachments.instance_id')
      .select('instances.instance_id')
      .where('attachments.volume_id', '=', volumeId)
      .where('attachments.instance_id', '!=', instanceId)
      .where('instances.state', 'in', ['pending', 'running'])
      .executeTakeFirst();
    if (other === undefined) await this.#options.dataPlane.endExport(volumeId);
  }

  async #endExports(instanceId: InstanceId): Promise<void> {
    const volumes = await this.#attached(instanceId);
    await Promise.all(volumes.map((volumeId) => this.endExport(volumeId, instanceId)));
  }

  async #attached(instanceId: InstanceId): Promise<VolumeId[]> {
    const rows = await this.#options.catalog
      .selectFrom('attachments')
      .select('volume_id')
      .where('instance_id', '=', instanceId)
      .execute();
    return rows.map((row) => row.volume_id);
  }

  async #setState(instanceId: InstanceId, state: 'running' | 'stopped'): Promise<void> {
    await this.#options.catalog.updateTable('instances').set({ state }).where('instance_id', '=', instanceId).execute();
  }
}
