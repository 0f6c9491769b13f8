package io.tallygate;

import io.tallygate.v1.CommitRequest;
import io.tallygate.v1.RecordUsageRequest;
import java.util.List;
import java.util.Optional;

/**
 * What waits in the buffer: an event, or a commit with the events to record where its reservation
 * has gone.
 */
final class Entry {
  final Optional<CommitRequest> commit;
  final List<RecordUsageRequest> events;
  final int size;
  final long since = System.nanoTime();
  long number;
  Optional<Segment> segment = Optional.empty();

  private Entry(Optional<CommitRequest> commit, List<RecordUsageRequest> events) {
    this.commit = commit;
    this.events = events;
    this.size =
        commit.map(CommitRequest::getSerializedSize).orElse(0)
            + events.stream().mapToInt(RecordUsageRequest::getSerializedSize).sum();
  }

  static Entry of(RecordUsageRequest event) {
    return new Entry(Optional.empty(), List.of(event));
  }

  static Entry of(CommitRequest commit, List<RecordUsageRequest> events) {
    return new Entry(Optional.of(commit), List.copyOf(events));
  }
}
