package tallygate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tallygate/tallygate/clients/go/tallygatepb"
)

// Reservation holds units until it is settled, once, by Commit or Release. It is safe for use by
// several goroutines at once.
type Reservation struct {
	// Decision is whether the units are held.
	Decision
	// ID names the reservation; empty when refused, and when Local.
	ID string
	// ExpiresAt is when it ends unless it is settled or extended; zero when Local.
	ExpiresAt time.Time

	client  *Client
	request *tallygatepb.ReserveRequest
	ttl     time.Duration
	excess  Excess

	mu      sync.Mutex
	actual  []int64
	settled *Settlement
	quiet   context.CancelFunc
}

// Items returns what was reserved.
func (r *Reservation) Items() []Item {
	out := make([]Item, len(r.request.GetItems()))
	for index, item := range r.request.GetItems() {
		out[index] = Item{item.GetMeter(), item.GetAmount(), item.GetDimensions()}
	}
	return out
}

// SetActual says what was used: an amount per item, in order, 0 for none. The last one counts.
func (r *Reservation) SetActual(amounts ...int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.actual = slices.Clone(amounts)
}

// KeepAlive extends the reservation every third of its TTL, until it is settled or the client is
// closed. [Client.Do] does so by itself.
func (r *Reservation) KeepAlive() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.Allowed || r.Local || r.settled != nil || r.quiet != nil {
		return
	}
	ctx, quiet := context.WithCancel(r.client.life)
	r.quiet = quiet
	r.client.begin(func() { r.beat(ctx) })
}

func (r *Reservation) beat(ctx context.Context) {
	ttl := r.ttl
	if ttl == 0 {
		ttl = ttlDefault
	}
	ticks := time.NewTicker(max(ttl/beatsPerTTL, beatMin))
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		request := ExtendRequest{r.request.GetTenantId(), r.ID, ttl}
		moved, err := r.client.Extend(ctx, request)
		if err != nil && !absent(err) || err == nil && moved.Outcome != OutcomeExtended {
			return // It has gone: Commit sees to it.
		}
	}
}

// Commit settles the reservation with what was used, and records it.
//
// When no answer comes, the client's buffer takes the commit; without a buffer the error is
// returned, and Commit may be called again. Usage of a reservation that has expired meanwhile is
// recorded beside it, under the ids that the commit would have given. A second Commit returns what
// the first has come to.
func (r *Reservation) Commit(ctx context.Context, options ...CallOption) (*Settlement, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.settled != nil {
		return r.settled, nil
	}
	if !r.Allowed {
		return nil, invalid("reservation_id", "the reservation was refused", r.OperationID)
	}
	if r.actual != nil && len(r.actual) != len(r.request.GetItems()) {
		return nil, invalid("amounts", fmt.Sprintf(
			"holds %d amounts for %d items", len(r.actual), len(r.request.GetItems()),
		), r.OperationID)
	}
	r.quieten()
	settled, err := r.settle(ctx, options)
	if err == nil {
		r.settled = settled
	}
	return settled, err
}

// Release gives the reservation back: nothing was used. After a Commit it does nothing.
func (r *Reservation) Release(ctx context.Context, options ...CallOption) (*Settlement, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.settled != nil {
		return r.settled, nil
	}
	r.quieten()
	if !r.Allowed || r.Local {
		r.settled = &Settlement{Local: r.Local, OperationID: r.OperationID}
		return r.settled, nil
	}
	request := ReleaseRequest{Tenant: r.request.GetTenantId(), ReservationID: r.ID}
	settled, err := r.client.Release(ctx, request, options...)
	if err == nil {
		r.settled = settled
	}
	return settled, err
}

func (r *Reservation) quieten() {
	if r.quiet != nil {
		r.quiet()
		r.quiet = nil
	}
}

func (r *Reservation) settle(ctx context.Context, options []CallOption) (*Settlement, error) {
	if r.Local {
		return r.settleLocally()
	}
	excess, err := excessOf(r.excess)
	if err != nil {
		return nil, err
	}
	commit := &tallygatepb.CommitRequest{
		TenantId:      r.request.GetTenantId(),
		ReservationId: r.ID,
		Amounts:       r.actual,
		OperationId:   settlingID(r.ID, "c"),
		Excess:        excess,
	}
	settled, err := r.client.commit(ctx, commit, options)
	if absent(err) && r.client.buffer != nil {
		fallback := r.events(commit.GetOperationId())
		if r.client.buffer.addCommit(commit, fallback) != nil {
			return nil, err
		}
		return &Settlement{
			Buffered: true, EventIDs: idsOf(fallback), OperationID: commit.GetOperationId(),
		}, nil
	}
	if gone := reservationGone(settled, err); gone != "" {
		return r.recordBeside(ctx, gone, commit.GetOperationId(), options)
	}
	return settled, err
}

// reservationGone returns the outcome of a commit that came too late, else an empty one. Nobody
// but its holder releases a reservation: one that was released has run out.
func reservationGone(settled *Settlement, err error) Outcome {
	var failure *Error
	switch {
	case errors.As(err, &failure) && failure.Reason == "RESERVATION_NOT_FOUND":
		return OutcomeExpired
	case err != nil:
		return ""
	case settled.Outcome == OutcomeExpired, settled.Outcome == OutcomeAlreadyReleased:
		return settled.Outcome
	}
	return ""
}

// recordBeside records what was used of a reservation that is gone.
func (r *Reservation) recordBeside(
	ctx context.Context, outcome Outcome, operationID string, options []CallOption,
) (*Settlement, error) {
	events := r.events(operationID)
	settled := &Settlement{
		Outcome: outcome, Recorded: true, EventIDs: idsOf(events), OperationID: operationID,
	}
	if len(events) == 0 {
		return settled, nil
	}
	call := call{"BatchRecordUsage", operationID, options}
	batch := &tallygatepb.BatchRecordUsageRequest{Requests: events}
	reply, err := invoke(ctx, r.client, call, r.client.usage.BatchRecordUsage, batch)
	for _, result := range reply.GetResults() {
		if fault := result.GetError(); fault != nil && err == nil {
			err = itemError(fault, operationID)
		}
	}
	if absent(err) && r.client.buffer != nil && r.client.buffer.addRecords(events) == nil {
		settled.Recorded, settled.Buffered = false, true
		return settled, nil
	}
	if err != nil {
		return nil, err
	}
	return settled, nil
}

// settleLocally has the buffer record what was used under the local policy.
func (r *Reservation) settleLocally() (*Settlement, error) {
	settled := &Settlement{Local: true, OperationID: r.OperationID}
	if r.client.buffer == nil {
		return settled, nil
	}
	var events []*tallygatepb.RecordUsageRequest
	for index, item := range r.request.GetItems() {
		if amount := r.used(index); amount > 0 {
			events = append(events, r.event(item, amount, eventID(r.OperationID, index)))
		}
	}
	if err := r.client.buffer.addRecords(events); err != nil {
		return nil, err
	}
	settled.Buffered, settled.EventIDs = true, idsOf(events)
	return settled, nil
}

// events returns what a commit of this operation id would record: what was reserved and used, and
// after it what went beyond, each under the service's own id for it.
func (r *Reservation) events(operationID string) []*tallygatepb.RecordUsageRequest {
	var covered, excess []*tallygatepb.RecordUsageRequest
	items := r.request.GetItems()
	for index, item := range items {
		amount := r.used(index)
		within := min(amount, item.GetAmount())
		if within > 0 {
			covered = append(covered, r.event(item, within, eventID(operationID, index)))
		}
		if beyond := amount - within; beyond > 0 {
			id := eventID(operationID, len(items)+index)
			excess = append(excess, r.event(item, beyond, id))
		}
	}
	return append(covered, excess...)
}

func (r *Reservation) event(
	item *tallygatepb.Item, amount int64, id string,
) *tallygatepb.RecordUsageRequest {
	return &tallygatepb.RecordUsageRequest{
		TenantId:    r.request.GetTenantId(),
		Meter:       item.GetMeter(),
		Amount:      amount,
		EventId:     id,
		OperationId: id,
		EventTime:   timestamppb.Now(),
		Dimensions:  item.GetDimensions(),
		Context:     r.request.GetContext(),
	}
}

func (r *Reservation) used(index int) int64 {
	if r.actual == nil {
		return r.request.GetItems()[index].GetAmount()
	}
	return r.actual[index]
}

func idsOf(events []*tallygatepb.RecordUsageRequest) []string {
	out := make([]string, len(events))
	for index, event := range events {
		out[index] = event.GetEventId()
	}
	return out
}
