package io.tallygate;

/** The caller may not do this, or not for this tenant or meter. */
public final class PermissionDeniedException extends TallygateException {
  private static final long serialVersionUID = 1L;

  PermissionDeniedException(Fault fault) {
    super(fault);
  }
}
