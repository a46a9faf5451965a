/** What the gateway publishes: changes of state only, each fit for one line of a log. */
export type GatewayEvent =
  | { readonly type: 'trying'; readonly server: string }
  | { readonly type: 'probe-failed'; readonly server: string; readonly reason: string }
  | { readonly type: 'refused'; readonly server: string; readonly reason: string }
  | { readonly type: 'selected'; readonly server: string; readonly bestEffort: boolean }
  | { readonly type: 'size'; readonly sizeBytes: number }
  | { readonly type: 'lost'; readonly server: string; readonly reason: string }
  | { readonly type: 'replaying'; readonly server: string; readonly writes: number; readonly bytes: number }
  | { readonly type: 'replayed'; readonly server: string }
  /** Rule T5: acknowledged writes of a predecessor are gone. Nothing is served. */
  | { readonly type: 'inheritance-lost'; readonly server: string }
  | { readonly type: 'commit-failed'; readonly reason: string; readonly retainedBytes: number }
  | { readonly type: 'gave-up'; readonly operation: string };
