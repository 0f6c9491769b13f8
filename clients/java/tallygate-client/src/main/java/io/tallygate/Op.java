package io.tallygate;

import io.grpc.MethodDescriptor;
import java.util.function.Function;

/**
 * One logical call, whichever way it is made.
 *
 * @param operationId its name; empty where it has none
 * @param done makes the result of the answer
 * @param failed makes the result where there is none, or throws
 */
record Op<Q, R, T>(
    MethodDescriptor<Q, R> method,
    Q request,
    String operationId,
    Function<R, T> done,
    Function<TallygateException, T> failed) {
  static <Q, R, T> Op<Q, R, T> of(
      MethodDescriptor<Q, R> method, Q request, String operationId, Function<R, T> done) {
    return new Op<>(
        method,
        request,
        operationId,
        done,
        error -> {
          throw error;
        });
  }

  /** Returns the same with a result that is made of its result. */
  <U> Op<Q, R, U> then(Function<T, U> next) {
    return new Op<>(
        method,
        request,
        operationId,
        done.andThen(next),
        failed.andThen(next));
  }

  Op<Q, R, T> orElse(Function<TallygateException, T> failed) {
    return new Op<>(method, request, operationId, done, failed);
  }
}
