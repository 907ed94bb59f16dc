import type { AccountId } from '../types/ids.ts';
import type { Catalog } from './catalog.ts';
import type { AccountSetting } from './schema.ts';

type Owner = { accountId: AccountId; region: string };

/** @returns undefined where the account has chosen nothing */
export async function accountSetting(
  catalog: Catalog,
  owner: Owner,
  name: AccountSetting,
): Promise<string | undefined> {
  const row = await catalog
    .selectFrom('account_settings')
    .select('value')
    .where('account_id', '=', owner.accountId)
    .where('region', '=', owner.region)
    .where('name', '=', name)
    .executeTakeFirst();
  return row?.value;
}

/** @param value undefined goes back to the default */
export async function setAccountSetting(
  catalog: Catalog,
  owner: Owner,
  name: AccountSetting,
  value: string | undefined,
): Promise<void> {
  const { accountId: account_id, region } = owner;
  if (value === undefined) {
    await catalog
      .deleteFrom('account_settings')
      .where('account_id', '=', account_id)
      .where('region', '=', region)
      .where('name', '=', name)
      .execute();
    return;
  }
  await catalog
    .insertInto('account_settings')
    .values({ account_id, region, name, value })
    .onConflict((conflict) => conflict.columns(['account_id', 'region', 'name']).doUpdateSet({ value }))
    .execute();
}
