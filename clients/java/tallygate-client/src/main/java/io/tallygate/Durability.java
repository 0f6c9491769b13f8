package io.tallygate;

/** How safely accepted events are held. A later one is safer. */
public enum Durability {
  /** As a request's minimum: the call's default. In a reply: there are no events. */
  UNSPECIFIED,
  /** Written to the sidecar's journal, not yet synced: survives the process, not the node. */
  BUFFERED,
  /** In Redis, as safe as its persistence is set up to be. */
  REDIS,
  /** Synced to the sidecar's own disk. */
  JOURNAL,
  /** Committed to the ledger. */
  POSTGRES
}
