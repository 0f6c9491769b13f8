package io.tallygate;

import java.util.Optional;

/**
 * What became of one request of a list: a value or an error.
 *
 * @param value the answer, where there is one
 * @param error why there is none
 * @param <T> what is answered
 */
public record Result<T>(Optional<T> value, Optional<TallygateException> error) {
  static <T> Result<T> of(T value) {
    return new Result<>(Optional.of(value), Optional.empty());
  }

  static <T> Result<T> failed(TallygateException error) {
    return new Result<>(Optional.empty(), Optional.of(error));
  }

  /**
   * Returns the answer.
   *
   * @throws TallygateException why there is none
   */
  public T orThrow() {
    return value.orElseThrow(error::orElseThrow);
  }
}
