package main

import (
	"context"
	"time"

	"github.com/tallygate/tallygate/clients/go"
)

// hold does what is about reservations.
func (d *driver) hold(ctx context.Context, client *tallygate.Client, asked *request) reply {
	switch asked.Do {
	case "reserve":
		return d.reserve(ctx, client, asked)
	case "with_reserve":
		return d.within(ctx, client, asked)
	case "refund":
		told, err := client.Refund(ctx, tallygate.RefundRequest{
			Tenant: asked.Tenant, EventID: asked.EventID, Amount: asked.Amount,
			OperationID: asked.OperationID,
		}, asked.options()...)
		if err != nil {
			return outcome(nil, err)
		}
		return outcome(reply{
			"event_id": told.EventID, "amount": told.Amount, "replayed": told.Replayed,
			"durability": told.Durability, "operation_id": told.OperationID,
			"limits": limits(told.Limits),
		}, nil)
	}
	id := asked.ReservationID
	if held := d.reservation(asked.Handle); held != nil {
		if held.Local {
			return d.local(ctx, held, asked)
		}
		id = held.ID
	}
	switch asked.Do {
	case "commit":
		return settled(client.Commit(ctx, tallygate.CommitRequest{
			Tenant: asked.Tenant, ReservationID: id, Amounts: asked.Amounts,
			OperationID: asked.OperationID, Excess: tallygate.Excess(asked.Excess),
		}, asked.options()...))
	case "release":
		return settled(client.Release(ctx, tallygate.ReleaseRequest{
			Tenant: asked.Tenant, ReservationID: id, OperationID: asked.OperationID,
		}, asked.options()...))
	default:
		return settled(client.Extend(ctx, tallygate.ExtendRequest{
			Tenant: asked.Tenant, ReservationID: id, TTL: ms(asked.TTLMS),
		}, asked.options()...))
	}
}

func (d *driver) local(
	ctx context.Context, held *tallygate.Reservation, asked *request,
) reply {
	if asked.Do == "release" {
		return settled(held.Release(ctx, asked.options()...))
	}
	if asked.Amounts != nil {
		held.SetActual(asked.Amounts...)
	}
	return settled(held.Commit(ctx, asked.options()...))
}

func (d *driver) reservation(handle string) *tallygate.Reservation {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.held[handle]
}

func (d *driver) reserve(ctx context.Context, client *tallygate.Client, asked *request) reply {
	held, err := client.Reserve(ctx, asked.reservation(), asked.options()...)
	if err != nil {
		return outcome(nil, err)
	}
	d.mu.Lock()
	d.held[asked.As] = held
	d.mu.Unlock()
	out := decision(&held.Decision)
	out["reservation_id"] = held.ID
	return outcome(out, nil)
}

func (d *driver) within(ctx context.Context, client *tallygate.Client, asked *request) reply {
	work := func(_ context.Context, held *tallygate.Reservation) error {
		time.Sleep(ms(asked.HoldMS))
		if asked.Work == "fail" {
			return errWork
		}
		if asked.Actual != nil {
			held.SetActual(asked.Actual...)
		}
		return nil
	}
	return settled(client.Do(ctx, asked.reservation(), work, asked.options()...))
}
