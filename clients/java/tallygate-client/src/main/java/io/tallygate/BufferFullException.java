package io.tallygate;

import io.grpc.Status;

/** The buffer has no room; what was to be recorded was not taken, and is the caller's still. */
public final class BufferFullException extends TallygateException {
  private static final long serialVersionUID = 1L;

  BufferFullException(String message) {
    super(Fault.of(Status.Code.RESOURCE_EXHAUSTED, message));
  }
}
