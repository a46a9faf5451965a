/**
 * What a successor must know if this process dies (failover rules T3, T4): kept on stable storage by whoever runs the gateway.
 */
export interface LedgerEntry {
  /** The server that writes may go to from now on, without credentials. */
  readonly server: string;
  readonly endpoint: string | undefined;
  readonly instance: string | undefined;
  /**
   * What holds acknowledged writes that may not be durable: `none`, this `instance`, or `nobody`: a replay has begun and is not
   * complete, so that only this process still has them all.
   */
  readonly unflushed: 'none' | 'instance' | 'nobody';
}

export interface Ledger {
  /** The entry is on stable storage when the promise resolves. Never rejects: without storage there is no takeover. */
  record(entry: LedgerEntry): Promise<void>;
}

/** For a gateway without a successor. */
export const noLedger: Ledger = { record: () => Promise.resolve() };
