package tallygate

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/tallygate/tallygate/clients/go/tallygatepb"
)

const (
	delayMin = 100 * time.Millisecond
	delayMax = 5 * time.Second
	// A batch is larger than a call, and nobody waits for it. What is too slow gets more time.
	sendTimeoutMin = 2 * time.Second
	sendTimeoutMax = 30 * time.Second
	doublingsMax   = 10
)

// run sends until ctx ends: the buffer's one goroutine.
func (b *Buffer) run(ctx context.Context) {
	defer close(b.stopped)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		batch, wait := b.take(time.Now())
		if len(batch) > 0 {
			b.send(ctx, batch)
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-b.wake:
		case <-timer.C:
		}
	}
}

const idle = time.Hour // A timer has to have an end; the next entry wakes.

// take returns what is to be sent now, or else how long to wait.
func (b *Buffer) take(now time.Time) ([]*entry, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		b.urgent = false
		return nil, idle
	}
	if wait := b.pausedUntil.Sub(now); wait > 0 && !b.urgent {
		return nil, wait
	}
	full := len(b.queue) >= b.options.BatchMax
	var batch, rest []*entry
	size, next := 0, now.Add(idle)
	for _, each := range b.queue {
		ready := !each.ready.After(now) || (b.urgent || full) && each.failures == 0
		if !ready && each.ready.Before(next) {
			next = each.ready
		}
		// A commit goes alone, as it is a call of its own.
		alone := each.commit != nil || len(batch) > 0 && batch[0].commit != nil
		fits := len(batch) == 0 || !alone && size+len(each.records) <= b.options.BatchMax
		if ready && fits {
			batch = append(batch, each)
			size += len(each.records)
			continue
		}
		rest = append(rest, each)
	}
	if len(batch) == 0 {
		b.urgent = false // What is left waits for its own time.
		return nil, next.Sub(now)
	}
	b.queue = rest
	return batch, 0
}

// send sends a batch, and puts back what has to be sent again.
func (b *Buffer) send(ctx context.Context, batch []*entry) {
	if batch[0].commit != nil {
		b.sendCommit(ctx, batch[0])
		return
	}
	var records []*tallygatepb.RecordUsageRequest
	for _, each := range batch {
		records = append(records, each.records...)
	}
	if len(records) == 0 { // The fallback of a commit of nothing.
		b.finish(batch)
		return
	}
	var trailer metadata.MD
	call := call{name: "BatchRecordUsage"}
	request := &tallygatepb.BatchRecordUsageRequest{Requests: records}
	method := withTrailer(b.client.usage.BatchRecordUsage, &trailer)
	reply, err := attempt(ctx, b.client, call, b.timeout(), method, request)
	if err == nil && len(reply.GetResults()) != len(records) {
		err = &Error{
			Code: codes.Internal, Message: "the reply holds another number of results",
			kind: ErrUnavailable, // To be asked again: the ids make it once.
		}
	}
	switch {
	case err == nil:
		b.read(batch, reply.GetResults())
	case again(err) || errors.Is(err, ErrPermissionDenied):
		// What a caller may not do for a tenant is told item by item: a list that is refused
		// whole is refused for its caller, and a wrong certificate must not empty a buffer.
		b.putBack(batch, err, trailer)
	case len(batch) > 1:
		// Something in it is refused, or it is too large: find out what.
		b.send(ctx, batch[:len(batch)/2])
		b.send(ctx, batch[len(batch)/2:])
	default:
		b.reject(batch[0], batch[0].records, err)
		b.finish(batch)
	}
}

// again tells whether the same call may be served another time: nothing is wrong with what it says,
// but with who calls, or with what is between, whose errors have no reason.
func again(err error) bool {
	var told *Error
	between := errors.Is(err, ErrInternal) && errors.As(err, &told) && told.Reason == ""
	return between || absent(err) || errors.Is(err, ErrCancelled) || errors.Is(err, ErrUnauthenticated)
}

func (b *Buffer) sendCommit(ctx context.Context, each *entry) {
	var trailer metadata.MD
	call := call{name: "Commit", operationID: each.commit.GetOperationId()}
	method := withTrailer(b.client.quota.Commit, &trailer)
	reply, err := attempt(ctx, b.client, call, b.timeout(), method, each.commit)
	if err != nil && again(err) {
		b.putBack([]*entry{each}, err, trailer)
		return
	}
	settled := &Settlement{Outcome: outcomeFrom(reply.GetOutcome())}
	switch gone := reservationGone(settled, err); {
	case gone != "" && each.records != nil:
		each.commit = nil // From now on it is what to record instead.
		b.requeue([]*entry{each})
	case gone != "" || err != nil:
		if err == nil {
			err = &Error{
				Code: codes.FailedPrecondition, Message: "the reservation is gone: " + string(gone),
				OperationID: call.operationID, kind: ErrFailedPrecondition,
			}
		}
		b.reject(each, each.records, err)
		b.finish([]*entry{each})
	default:
		b.client.counters.sent.Add(1)
		if reply.GetReplayed() || settled.Outcome == OutcomeAlreadyCommitted {
			b.client.counters.replayed.Add(1)
		}
		b.finish([]*entry{each})
	}
}

// read settles each entry by the results of its records.
func (b *Buffer) read(batch []*entry, results []*tallygatepb.BatchRecordUsageResult) {
	var done, later []*entry
	for _, each := range batch {
		mine := results[:len(each.records)]
		results = results[len(each.records):]
		if wait, retry := b.readOne(each, mine); retry {
			each.failures++
			each.ready = time.Now().Add(max(wait, jittered(each.failures)))
			later = append(later, each)
			continue
		}
		done = append(done, each)
	}
	b.finish(done)
	b.requeue(later)
}

// readOne returns whether an entry has to be sent again, and after how long. Of several records all
// are sent again then: their ids make each of them once.
func (b *Buffer) readOne(
	each *entry, results []*tallygatepb.BatchRecordUsageResult,
) (time.Duration, bool) {
	for _, result := range results {
		if fault := result.GetError(); fault != nil {
			if err := itemError(fault, ""); again(err) || fault.GetRetryAfter() != nil {
				return err.RetryAfter, true
			}
		}
	}
	for index, result := range results {
		if fault := result.GetError(); fault != nil {
			record := each.records[index]
			b.reject(each, each.records[index:index+1], itemError(fault, operationOf(record)))
			continue
		}
		b.client.counters.sent.Add(1)
		if result.GetResponse().GetReplayed() {
			b.client.counters.replayed.Add(1)
		}
	}
	return 0, false
}

// reject counts records that will never be accepted, and tells of them.
func (b *Buffer) reject(each *entry, records []*tallygatepb.RecordUsageRequest, err error) {
	events := make([]Event, 0, len(records))
	for _, record := range records {
		events = append(events, eventFrom(record))
	}
	if len(events) == 0 && each.commit != nil { // All that is known of a commit without a fallback.
		events = []Event{{
			Tenant: each.commit.GetTenantId(), OperationID: each.commit.GetOperationId(),
		}}
	}
	for _, event := range events {
		b.client.counters.rejected.Add(1)
		if hook := b.client.settings.hooks.Rejected; hook != nil {
			guarded(func() { hook(event, err) })
		}
	}
}

// finish settles entries that the service has answered, and ends the back-off.
func (b *Buffer) finish(entries []*entry) {
	b.mu.Lock()
	b.failures, b.pausedUntil = 0, time.Time{}
	b.mu.Unlock()
	b.settled(entries)
}

// putBack has a batch that got no answer sent again, first of all, after a while.
func (b *Buffer) putBack(batch []*entry, err error, trailer metadata.MD) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures++
	wait := max(jittered(b.failures), pushback(trailer))
	var failure *Error
	if errors.As(err, &failure) {
		wait = max(wait, failure.RetryAfter)
	}
	b.pausedUntil = time.Now().Add(wait)
	b.urgent = false
	b.queue = append(batch, b.queue...)
}

// requeue has entries sent again by themselves, behind the others.
func (b *Buffer) requeue(entries []*entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queue = append(b.queue, entries...)
}

func (b *Buffer) timeout() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	least := max(b.client.settings.timeout, sendTimeoutMin)
	return min(least<<min(b.failures, doublingsMax), max(least, sendTimeoutMax))
}

// jittered returns a random wait below a bound that doubles with each failure: those who failed
// together do not come back together.
func jittered(failures int) time.Duration {
	bound := min(delayMin<<min(failures-1, doublingsMax), delayMax)
	return rand.N(bound) + 1
}

// pushback returns how long the service asks to be left alone.
func pushback(trailer metadata.MD) time.Duration {
	for _, value := range trailer.Get("grpc-retry-pushback-ms") {
		if ms, err := strconv.Atoi(value); err == nil && ms > 0 {
			return time.Duration(ms) * time.Millisecond
		}
	}
	return 0
}

func withTrailer[Q, R any](
	method func(context.Context, Q, ...grpc.CallOption) (R, error), trailer *metadata.MD,
) func(context.Context, Q, ...grpc.CallOption) (R, error) {
	return func(ctx context.Context, request Q, options ...grpc.CallOption) (R, error) {
		return method(ctx, request, append(options, grpc.Trailer(trailer))...)
	}
}
