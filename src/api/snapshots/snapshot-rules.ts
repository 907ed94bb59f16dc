import { errors } from '../errors.ts';

const MAX_DESCRIPTION_CHARACTERS = 255;

/** @throws ApiError InvalidParameterValue when it is too long */
export function checkDescription(description: string | undefined): string {
  const length = [...(description ?? '')].length;
  if (length > MAX_DESCRIPTION_CHARACTERS) {
    throw errors.invalidValue(
      'Description',
      `${length} characters`,
      `It can have at most ${MAX_DESCRIPTION_CHARACTERS} characters.`,
    );
  }
  return description ?? '';
}

/** Snapshots live in the region's object store: there are no Outposts and no Local Zones. */
export function refusePlacement(outpostArn: string | undefined, location: string | undefined): void {
  if (outpostArn !== undefined) {
    throw errors.invalidValue(
      'OutpostArn',
      outpostArn,
      'There are no Outposts here: snapshots are kept in the region.',
    );
  }
  if (location === undefined || location === 'regional') return;
  if (location === 'local')
    throw errors.unsupported('Location=local: there are no Local Zones here; snapshots are regional.');
  throw errors.invalidValue('Location', location, "Expected 'regional'.");
}
