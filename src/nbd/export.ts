import { EXPORT_FLAG } from './protocol.ts';

/** What the handshake says of an export before a worker opens it. */
export type ExportDescription = { name: string; sizeBytes: number; readOnly: boolean; description: string };

/**
 * The exports there are. Asked by the handshake.
 */
export interface ExportDirectory {
  list(): Promise<string[]>;
  /** @returns undefined when there is none of that name (or none that this client may know of) */
  describe(name: string): Promise<ExportDescription | undefined>;
}

/** Several connections see one volume: a flush on one covers the writes answered on all. */
export function transmissionFlags(readOnly: boolean): number {
  const all = EXPORT_FLAG.HAS_FLAGS | EXPORT_FLAG.SEND_FLUSH | EXPORT_FLAG.SEND_DF;
  const shared = EXPORT_FLAG.CAN_MULTI_CONN | EXPORT_FLAG.SEND_CACHE;
  if (readOnly) return all | shared | EXPORT_FLAG.READ_ONLY;
  return all | shared | EXPORT_FLAG.SEND_FUA | EXPORT_FLAG.SEND_TRIM | EXPORT_FLAG.SEND_WRITE_ZEROES;
}
