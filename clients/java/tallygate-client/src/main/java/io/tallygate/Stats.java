package io.tallygate;

import java.util.Map;

/**
 * What a client has counted since it was opened.
 *
 * @param calls logical calls that have ended
 * @param errors those that ended with an error
 * @param localOpen calls granted without an answer
 * @param localClosed calls that failed without an answer
 * @param localOpenByMethod the same by method
 * @param localClosedByMethod the same by method
 * @param recorded entries that the buffer has taken
 * @param sent entries of the buffer that the service has accepted
 * @param replayed those of them that it had accepted before
 * @param rejected those that it refused for good
 * @param refusedFull entries that the buffer had no room for
 * @param retries attempts beyond the first, of all calls
 * @param pending entries that wait in the buffer
 * @param spoolBytes what they take on disk
 * @param spoolTorn files of the spool that were damaged
 */
public record Stats(
    long calls,
    long errors,
    long localOpen,
    long localClosed,
    Map<String, Long> localOpenByMethod,
    Map<String, Long> localClosedByMethod,
    long recorded,
    long sent,
    long replayed,
    long rejected,
    long refusedFull,
    long retries,
    long pending,
    long spoolBytes,
    long spoolTorn) {}
