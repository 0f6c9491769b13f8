package io.tallygate;

/**
 * Work that is done under a reservation.
 *
 * @param <T> what it returns
 * @param <E> what it may throw
 */
@FunctionalInterface
public interface ReservedWork<T, E extends Exception> {
  /** Does the work, and may say what it has used. */
  T apply(Reservation held) throws E;
}
