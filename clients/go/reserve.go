package tallygate

import (
	"context"
	"time"

	"github.com/tallygate/tallygate/clients/go/tallygatepb"
)

// Reserve holds units for work whose cost is not known yet; they count against every limit at once.
// A refusal is a value: look at Allowed. When the sidecar does not answer, the local policy decides.
//
// Settle what it returns by [Reservation.Commit] or [Reservation.Release], or by the reservation's
// id; [Client.Do] does it all.
func (c *Client) Reserve(
	ctx context.Context, request ReserveRequest, options ...CallOption,
) (*Reservation, error) {
	made := &tallygatepb.ReserveRequest{
		TenantId:    request.Tenant,
		Items:       itemsOf(request.Items),
		OperationId: orNew(request.OperationID),
		Ttl:         ttlOf(request.TTL),
		Context:     contextOf(request.Context),
	}
	excess := request.Excess
	if excess == "" {
		excess = ExcessRecord
	}
	if _, err := excessOf(excess); err != nil {
		return nil, err
	}
	held := &Reservation{client: c, request: made, ttl: request.TTL, excess: excess}
	call := call{"Reserve", made.GetOperationId(), options}
	reply, err := invoke(ctx, c, call, c.quota.Reserve, made)
	if err != nil {
		decision, err := c.decideLocally(call.name, call.operationID, err)
		if err != nil {
			return nil, err
		}
		held.Decision = *decision
		return held, nil
	}
	held.Decision = Decision{
		Allowed:     reply.GetAllowed(),
		Limits:      limitsFrom(reply.GetLimits()),
		RefusedBy:   reply.GetRefusedBy(),
		RetryAfter:  reply.GetRetryAfter().AsDuration(),
		Replayed:    reply.GetReplayed(),
		OperationID: call.operationID,
	}
	held.ID = reply.GetReservationId()
	held.ExpiresAt = timeFrom(reply.GetExpiresAt())
	return held, nil
}

// Commit settles a reservation with what was used. An outcome such as EXPIRED is a value: nothing
// was recorded then. [Reservation.Commit] does more about it.
func (c *Client) Commit(
	ctx context.Context, request CommitRequest, options ...CallOption,
) (*Settlement, error) {
	excess, err := excessOf(request.Excess)
	if err != nil {
		return nil, err
	}
	made := &tallygatepb.CommitRequest{
		TenantId:      request.Tenant,
		ReservationId: request.ReservationID,
		Amounts:       request.Amounts,
		OperationId:   settlingOr(request.OperationID, request.ReservationID, "c"),
		Excess:        excess,
	}
	return c.commit(ctx, made, options)
}

func (c *Client) commit(
	ctx context.Context, made *tallygatepb.CommitRequest, options []CallOption,
) (*Settlement, error) {
	call := call{"Commit", made.GetOperationId(), options}
	reply, err := invoke(ctx, c, call, c.quota.Commit, made)
	if err != nil {
		return nil, err
	}
	return &Settlement{
		Outcome:     outcomeFrom(reply.GetOutcome()),
		Limits:      limitsFrom(reply.GetLimits()),
		RefusedBy:   reply.GetRefusedBy(),
		Unrecorded:  reply.GetUnrecorded(),
		Replayed:    reply.GetReplayed(),
		Durability:  durabilityFrom(reply.GetDurability()),
		EventIDs:    reply.GetEventIds(),
		OperationID: call.operationID,
	}, nil
}

// Release gives a reservation back: nothing was used.
func (c *Client) Release(
	ctx context.Context, request ReleaseRequest, options ...CallOption,
) (*Settlement, error) {
	made := &tallygatepb.ReleaseRequest{
		TenantId:      request.Tenant,
		ReservationId: request.ReservationID,
		OperationId:   settlingOr(request.OperationID, request.ReservationID, "r"),
	}
	call := call{"Release", made.GetOperationId(), options}
	reply, err := invoke(ctx, c, call, c.quota.Release, made)
	if err != nil {
		return nil, err
	}
	return &Settlement{
		Outcome:     outcomeFrom(reply.GetOutcome()),
		Replayed:    reply.GetReplayed(),
		OperationID: call.operationID,
	}, nil
}

// Extend moves the end of a reservation: the heartbeat of work that goes on.
func (c *Client) Extend(
	ctx context.Context, request ExtendRequest, options ...CallOption,
) (*Settlement, error) {
	made := &tallygatepb.ExtendReservationRequest{
		TenantId:      request.Tenant,
		ReservationId: request.ReservationID,
		Ttl:           ttlOf(request.TTL),
	}
	call := call{name: "ExtendReservation", options: options}
	reply, err := invoke(ctx, c, call, c.quota.ExtendReservation, made)
	if err != nil {
		return nil, err
	}
	return &Settlement{
		Outcome:   outcomeFrom(reply.GetOutcome()),
		ExpiresAt: timeFrom(reply.GetExpiresAt()),
	}, nil
}

// Do holds what the request asks for, runs work, and settles the reservation: an error of work, or
// its panic, releases it; else it is committed with what [Reservation.SetActual] was told, or with
// what was reserved. Work that takes longer than a third of the TTL is kept alive.
//
// A refusal is a [*QuotaExceededError], and work is not run. An error of work is returned as it is.
// The settlement is made even when ctx has ended meanwhile. When its commit gets no answer, the
// client's buffer takes it; without a buffer the error is returned.
func (c *Client) Do(
	ctx context.Context, request ReserveRequest,
	work func(ctx context.Context, reservation *Reservation) error, options ...CallOption,
) (*Settlement, error) {
	held, err := c.Reserve(ctx, request, options...)
	if err != nil {
		return nil, err
	}
	if !held.Allowed {
		return nil, &QuotaExceededError{held.Decision}
	}
	after := context.WithoutCancel(ctx)
	done := false
	defer func() {
		if !done {
			_, _ = held.Release(after) // It comes back by itself too.
		}
	}()
	held.KeepAlive()
	if err := work(ctx, held); err != nil {
		return nil, err
	}
	done = true
	return held.Commit(after)
}

func settlingOr(given, reservationID, suffix string) string {
	if given != "" || reservationID == "" {
		return given
	}
	return settlingID(reservationID, suffix)
}

const (
	ttlDefault  = time.Minute // The service's own.
	beatsPerTTL = 3
	beatMin     = 10 * time.Millisecond
)
