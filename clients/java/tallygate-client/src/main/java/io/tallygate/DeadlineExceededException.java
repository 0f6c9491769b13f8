package io.tallygate;

/** No answer came in time. It may have been charged: retry under the same operation id. */
public final class DeadlineExceededException extends TallygateException {
  private static final long serialVersionUID = 1L;

  DeadlineExceededException(Fault fault) {
    super(fault);
  }
}
