package io.tallygate;

/** The caller itself gave up: its thread was interrupted, or its context cancelled. */
public final class CallCancelledException extends TallygateException {
  private static final long serialVersionUID = 1L;

  CallCancelledException(Fault fault) {
    super(fault);
  }
}
