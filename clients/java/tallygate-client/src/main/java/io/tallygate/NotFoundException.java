package io.tallygate;

/** What was named does not exist. */
public final class NotFoundException extends TallygateException {
  private static final long serialVersionUID = 1L;

  NotFoundException(Fault fault) {
    super(fault);
  }
}
