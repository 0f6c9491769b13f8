package io.tallygate;

/** Something unexpected, in the service or here. */
public final class InternalException extends TallygateException {
  private static final long serialVersionUID = 1L;

  InternalException(Fault fault) {
    super(fault);
  }
}
