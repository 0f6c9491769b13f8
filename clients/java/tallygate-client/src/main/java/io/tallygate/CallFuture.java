package io.tallygate;

import java.util.concurrent.CompletableFuture;

/** A future whose cancellation ends what it waits for. */
final class CallFuture<T> extends CompletableFuture<T> {
  private volatile Runnable source = () -> {};

  /** Says what to end when this is cancelled; at once where it has been already. */
  void endsWith(Runnable source) {
    this.source = source;
    if (isCancelled()) {
      source.run();
    }
  }

  @Override
  public boolean cancel(boolean mayInterruptIfRunning) {
    boolean cancelled = super.cancel(mayInterruptIfRunning);
    if (cancelled) {
      source.run();
    }
    return cancelled;
  }

  @Override
  public <U> CompletableFuture<U> newIncompleteFuture() {
    CallFuture<U> next = new CallFuture<>();
    next.endsWith(() -> cancel(true));
    return next;
  }
}
