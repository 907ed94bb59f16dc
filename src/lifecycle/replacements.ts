import type { Catalog } from '../catalog/catalog.ts';

/**
 * Replacements of root volumes that were cut off before the new root took the old one's place: they have failed, and the
 * volumes that were to be the new ones (known by their tasks' ids, which are their client tokens) go.
 * @param taskId one of them; without it, all: no server that was at work on one is left
 */
export async function failReplacements(catalog: Catalog, now: Date, taskId?: string): Promise<void> {
  await catalog.transaction().execute(async (transaction) => {
    let begun = transaction.selectFrom('replace_root_tasks').select('task_id').where('state', '=', 'in-progress');
    if (taskId !== undefined) begun = begun.where('task_id', '=', taskId);
    await transaction
      .updateTable('volumes')
      .set({ state: 'deleting' })
      .where('client_token', 'in', begun)
      .where('volume_id', 'not in', (q) => q.selectFrom('attachments').select('attachments.volume_id'))
      .execute();
    await transaction
      .updateTable('replace_root_tasks')
      .set({ state: 'failed', completed_at: now.toISOString() })
      .where('task_id', 'in', begun)
      .execute();
  });
}
