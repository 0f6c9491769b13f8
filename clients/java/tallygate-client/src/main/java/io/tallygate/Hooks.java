package io.tallygate;

import io.grpc.Status;
import java.time.Duration;

/**
 * What the client tells of itself, for metrics. What a hook throws is logged, and never breaks a
 * call. Hooks are called on the thread that made the call, or on one of the client's, and should
 * not wait.
 */
public interface Hooks {
  /** Hooks that do nothing. */
  Hooks NONE = new Hooks() {};

  /** A logical call has ended, all its retries included. */
  default void onCall(String method, Status.Code code, Duration took) {}

  /** No answer came, and the local policy has decided. */
  default void onLocal(String method, OnAbsent policy) {}

  /**
   * Buffered usage will not be recorded: the service refuses it for good, or the client was closed
   * before it could be sent and has no spool.
   */
  default void onRejected(Usage event, TallygateException error) {}

  /** So many entries wait in the buffer. */
  default void onBuffer(int pending) {}
}
