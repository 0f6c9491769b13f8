package io.tallygate;

/** What was asked for does not fit the state of things. Read it first. */
public final class FailedPreconditionException extends TallygateException {
  private static final long serialVersionUID = 1L;

  FailedPreconditionException(Fault fault) {
    super(fault);
  }
}
