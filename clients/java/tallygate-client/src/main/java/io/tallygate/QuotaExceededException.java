package io.tallygate;

import io.grpc.Status;

/** A limit refused. Only what gives no decision to look at throws this. */
public final class QuotaExceededException extends TallygateException {
  private static final long serialVersionUID = 1L;

  private final transient Decision decision;

  QuotaExceededException(Decision decision) {
    super(
        new Fault(
            Status.Code.RESOURCE_EXHAUSTED,
            "limit " + decision.refusedBy().orElse("unknown") + " refuses",
            "QUOTA_EXCEEDED",
            "",
            decision.retryAfter().orElse(null),
            decision.operationId(),
            null));
    this.decision = decision;
  }

  /** The decision that refused. */
  public Decision decision() {
    return decision;
  }
}
