package io.tallygate;

/** No answer came, or the sidecar is overloaded. Retry later, under the same operation id. */
public final class UnavailableException extends TallygateException {
  private static final long serialVersionUID = 1L;

  UnavailableException(Fault fault) {
    super(fault);
  }
}
