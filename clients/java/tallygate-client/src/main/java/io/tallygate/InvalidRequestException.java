package io.tallygate;

/** The request is wrong: {@link #field} names where. Do not retry. */
public final class InvalidRequestException extends TallygateException {
  private static final long serialVersionUID = 1L;

  InvalidRequestException(Fault fault) {
    super(fault);
  }
}
