package tallygate

import (
	"context"
	"errors"
	"io"

	"github.com/tallygate/tallygate/clients/go/tallygatepb"
)

// CheckAndConsume decides whether work may be done, and charges it in the same step. When the
// sidecar does not answer, the local policy decides: see [WithOnAbsent].
func (c *Client) CheckAndConsume(
	ctx context.Context, request CheckAndConsumeRequest, options ...CallOption,
) (*Decision, error) {
	made, err := chargeOf(request)
	if err != nil {
		return nil, err
	}
	call := call{"CheckAndConsume", made.GetOperationId(), options}
	reply, err := invoke(ctx, c, call, c.quota.CheckAndConsume, made)
	if err == nil {
		return decisionFrom(reply, call.operationID), nil
	}
	decision, err := c.decideLocally(call.name, call.operationID, err)
	if err != nil {
		return nil, err
	}
	c.recordLocally(made, decision)
	return decision, nil
}

// recordLocally has the buffer record what was granted without the sidecar. The ids are those that
// the sidecar makes, so that a charge whose reply alone was lost is recorded once. A buffer that is
// full counts what it refuses: open means that the work goes on.
func (c *Client) recordLocally(
	charge *tallygatepb.CheckAndConsumeRequest, decision *Decision,
) {
	if c.buffer == nil {
		return
	}
	ids := make([]string, len(charge.GetItems()))
	events := make([]*tallygatepb.RecordUsageRequest, len(charge.GetItems()))
	for index, item := range charge.GetItems() {
		ids[index] = eventID(charge.GetOperationId(), index)
		events[index] = recordOfItem(charge.GetTenantId(), item, charge.GetContext(), ids[index])
	}
	if c.buffer.addRecords(events) == nil {
		decision.EventIDs = ids
	}
}

func chargeOf(request CheckAndConsumeRequest) (*tallygatepb.CheckAndConsumeRequest, error) {
	durability, err := durabilityOf(request.MinDurability)
	return &tallygatepb.CheckAndConsumeRequest{
		TenantId:      request.Tenant,
		Items:         itemsOf(request.Items),
		OperationId:   orNew(request.OperationID),
		Context:       contextOf(request.Context),
		MinDurability: durability,
	}, err
}

// BatchCheckAndConsume decides each request by itself, and returns one result per request, in
// order. The local policy does not apply.
func (c *Client) BatchCheckAndConsume(
	ctx context.Context, requests []CheckAndConsumeRequest, options ...CallOption,
) ([]DecisionResult, error) {
	made := &tallygatepb.BatchCheckAndConsumeRequest{}
	for _, request := range requests {
		charge, err := chargeOf(request)
		if err != nil {
			return nil, err
		}
		made.Requests = append(made.Requests, charge)
	}
	call := call{name: "BatchCheckAndConsume", options: options}
	reply, err := invoke(ctx, c, call, c.quota.BatchCheckAndConsume, made)
	if err != nil {
		return nil, err
	}
	out := make([]DecisionResult, len(reply.GetResults()))
	for index, result := range reply.GetResults() {
		id := made.GetRequests()[index].GetOperationId()
		if fault := result.GetError(); fault != nil {
			out[index].Err = itemError(fault, id)
			continue
		}
		out[index].Decision = decisionFrom(result.GetResponse(), id)
	}
	return out, nil
}

// Check answers as CheckAndConsume would, without charging or recording. When the sidecar does not
// answer, the local policy decides.
func (c *Client) Check(
	ctx context.Context, request CheckRequest, options ...CallOption,
) (*Decision, error) {
	made := &tallygatepb.CheckRequest{
		TenantId: request.Tenant,
		Items:    itemsOf(request.Items),
		Context:  contextOf(request.Context),
	}
	call := call{name: "Check", options: options}
	reply, err := invoke(ctx, c, call, c.quota.Check, made)
	if err != nil {
		return c.decideLocally(call.name, "", err)
	}
	return &Decision{
		Allowed:    reply.GetAllowed(),
		Limits:     limitsFrom(reply.GetLimits()),
		RefusedBy:  reply.GetRefusedBy(),
		RetryAfter: reply.GetRetryAfter().AsDuration(),
	}, nil
}

// Quota reads where a tenant stands against its limits.
func (c *Client) Quota(
	ctx context.Context, request QuotaRequest, options ...CallOption,
) (*Quota, error) {
	made := &tallygatepb.GetQuotaRequest{
		TenantId: request.Tenant, Meters: request.Meters, Dimensions: request.Dimensions,
	}
	reply, err := invoke(ctx, c, call{name: "GetQuota", options: options}, c.quota.GetQuota, made)
	if err != nil {
		return nil, err
	}
	return &Quota{limitsFrom(reply.GetLimits()), reply.GetPlan(), reply.GetCatalogVersion()}, nil
}

// Watch calls seen with where the tenant stands, now and on each change, until ctx ends or seen
// returns an error, which is returned then. Each call replaces what the one before has said. The
// sidecar ends a watch when it stops: on [ErrUnavailable] call Watch again. It has no deadline but
// that of ctx.
func (c *Client) Watch(
	ctx context.Context, request QuotaRequest, seen func(Quota) error,
) error {
	if c.closed.Load() {
		return ErrClosed
	}
	bounded, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.quota.WatchQuota(bounded, &tallygatepb.WatchQuotaRequest{
		TenantId: request.Tenant, Meters: request.Meters, Dimensions: request.Dimensions,
	})
	for err == nil {
		var reply *tallygatepb.WatchQuotaResponse
		if reply, err = stream.Recv(); err == nil {
			quota := Quota{limitsFrom(reply.GetLimits()), reply.GetPlan(), reply.GetCatalogVersion()}
			if fault := seen(quota); fault != nil {
				return fault
			}
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return errorOf(err, "", errors.Is(ctx.Err(), context.Canceled))
}

// Refund takes back all or part of an event: its quota, by a negative event.
func (c *Client) Refund(
	ctx context.Context, request RefundRequest, options ...CallOption,
) (*Refund, error) {
	made := &tallygatepb.RefundRequest{
		TenantId:    request.Tenant,
		EventId:     request.EventID,
		Amount:      request.Amount,
		OperationId: orNew(request.OperationID),
		Reason:      request.Reason,
	}
	call := call{"Refund", made.GetOperationId(), options}
	reply, err := invoke(ctx, c, call, c.quota.Refund, made)
	if err != nil {
		return nil, err
	}
	return &Refund{
		EventID:     reply.GetEventId(),
		Amount:      reply.GetAmount(),
		Replayed:    reply.GetReplayed(),
		Durability:  durabilityFrom(reply.GetDurability()),
		Limits:      limitsFrom(reply.GetLimits()),
		OperationID: call.operationID,
	}, nil
}
