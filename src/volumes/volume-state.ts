import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { type DataKey, WrongKeyError } from '../encryption/data-key.ts';
import { asEpoch, type EpochNumber } from '../types/units.ts';
import type { Disk } from './disk.ts';

/** No boot has this id: what is said to have been opened in it is not believed. */
export const NO_BOOT = 'none';

const Saved = z.strictObject({
  version: z.literal(1),
  volumeId: z.string(),
  sizeBytes: z.number().int().positive(),
  /** The boot in which the volume was last opened; another one now means that what was not synced may be gone. */
  bootId: z.string(),
  /** Closed after a sync of everything. */
  clean: z.boolean(),
  /** Dirty bits of epochs before this one cannot be trusted: a cut over them compares hashes instead. */
  trustedFrom: z.number().int().positive(),
  /** Blocks may still be only in the snapshot that the volume was made from. */
  hydrating: z.boolean(),
  /** Of an encrypted volume: tells its key from others, so that a wrong one never makes garbage. */
  keyCheck: z.string().optional(),
});

export type VolumeState = {
  volumeId: string;
  sizeBytes: number;
  bootId: string;
  clean: boolean;
  trustedFrom: EpochNumber;
  hydrating: boolean;
  keyCheck?: string | undefined;
};

/** `volume.json`: what the engine must know of a volume before it can read its other files. */
export function readVolumeState(disk: Disk, directory: string): VolumeState {
  const saved = Saved.parse(JSON.parse(disk.readText(`${directory}/volume.json`)));
  return { ...saved, trustedFrom: asEpoch(saved.trustedFrom) };
}

/** Resolves when it is durable. */
export async function writeVolumeState(disk: Disk, directory: string, state: VolumeState): Promise<void> {
  await disk.replaceText(`${directory}/volume.json`, `${JSON.stringify({ version: 1, ...state }, undefined, 2)}\n`);
}

/** The `volume.json` of a volume that is open: its changes go there one after the other. */
export class SavedState {
  readonly #disk: Disk;
  readonly #directory: string;
  #state: VolumeState;
  /** After a failure the file may have either. */
  #isKnown = true;
  #saving: Promise<void> = Promise.resolve();

  /** @param state as it is in the file */
  constructor(disk: Disk, directory: string, state: VolumeState) {
    this.#disk = disk;
    this.#directory = directory;
    this.#state = state;
  }

  get state(): Readonly<VolumeState> {
    return this.#state;
  }

  /** Resolves when the change is durable; at once, where it is none. @throws ENOSPC, EIO … */
  save(change: Partial<VolumeState>): Promise<void> {
    // One that failed has told who asked for it; the next one's file is its own.
    const saving = this.#saving.catch(() => undefined).then(() => this.#saveNow(change));
    this.#saving = saving;
    return saving;
  }

  async #saveNow(change: Partial<VolumeState>): Promise<void> {
    const next = { ...this.#state, ...change };
    // A new volume's first opening.
    if (this.#isKnown && isDeepStrictEqual(next, this.#state)) return;
    this.#isKnown = false;
    await writeVolumeState(this.#disk, this.#directory, next);
    this.#isKnown = true;
    this.#state = next;
  }
}

/** @throws WrongKeyError where the volume is encrypted with another key, or not at all */
export function requireItsKey(directory: string, state: VolumeState, key: DataKey | undefined): void {
  if (state.keyCheck === key?.check) return;
  throw new WrongKeyError(
    key === undefined
      ? `${directory} is encrypted, and no key came with it`
      : `the key is not the one that ${directory} is encrypted with`,
  );
}
