package io.tallygate;

import io.grpc.Status;

/** The spool's directory cannot be used: another process holds it, or the disk fails. */
public final class SpoolException extends TallygateException {
  private static final long serialVersionUID = 1L;

  private final boolean locked;

  SpoolException(String message, Throwable cause) {
    super(Fault.of(Status.Code.FAILED_PRECONDITION, message, cause));
    this.locked = false;
  }

  SpoolException(String message) {
    super(Fault.of(Status.Code.FAILED_PRECONDITION, message));
    this.locked = true;
  }

  /** Whether another buffer holds the directory. */
  public boolean locked() {
    return locked;
  }
}
