package io.tallygate;

/** A bound of the service itself was met; this is no quota of a tenant. */
public final class ResourceExhaustedException extends TallygateException {
  private static final long serialVersionUID = 1L;

  ResourceExhaustedException(Fault fault) {
    super(fault);
  }
}
