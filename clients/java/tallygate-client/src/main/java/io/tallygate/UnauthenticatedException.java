package io.tallygate;

/** The caller has not proven who it is. */
public final class UnauthenticatedException extends TallygateException {
  private static final long serialVersionUID = 1L;

  UnauthenticatedException(Fault fault) {
    super(fault);
  }
}
