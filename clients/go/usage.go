package tallygate

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tallygate/tallygate/clients/go/tallygatepb"
)

// Record records one event, and returns when it is accepted. See [Buffer] for not waiting.
func (c *Client) Record(
	ctx context.Context, event Event, options ...CallOption,
) (*Receipt, error) {
	made, err := recordOf(event)
	if err != nil {
		return nil, err
	}
	call := call{"RecordUsage", operationOf(made), options}
	reply, err := invoke(ctx, c, call, c.usage.RecordUsage, made)
	if err != nil {
		return nil, err
	}
	return receiptFrom(reply), nil
}

// BatchRecord records up to 1,000 events; each succeeds or fails by itself. It returns one result
// per event, in order.
func (c *Client) BatchRecord(
	ctx context.Context, events []Event, options ...CallOption,
) ([]ReceiptResult, error) {
	made := &tallygatepb.BatchRecordUsageRequest{}
	for _, event := range events {
		record, err := recordOf(event)
		if err != nil {
			return nil, err
		}
		made.Requests = append(made.Requests, record)
	}
	call := call{name: "BatchRecordUsage", options: options}
	reply, err := invoke(ctx, c, call, c.usage.BatchRecordUsage, made)
	if err != nil {
		return nil, err
	}
	out := make([]ReceiptResult, len(reply.GetResults()))
	for index, result := range reply.GetResults() {
		if fault := result.GetError(); fault != nil {
			out[index].Err = itemError(fault, operationOf(made.GetRequests()[index]))
			continue
		}
		out[index].Receipt = receiptFrom(result.GetResponse())
	}
	return out, nil
}

func operationOf(record *tallygatepb.RecordUsageRequest) string {
	if id := record.GetOperationId(); id != "" {
		return id
	}
	return record.GetEventId()
}

// recordOfItem returns the request that records an item of a call under an id that the service
// would have made, as used now.
func recordOfItem(
	tenant string, item *tallygatepb.Item, circumstances *tallygatepb.EventContext, id string,
) *tallygatepb.RecordUsageRequest {
	return &tallygatepb.RecordUsageRequest{
		TenantId:    tenant,
		Meter:       item.GetMeter(),
		Amount:      item.GetAmount(),
		EventId:     id,
		OperationId: id,
		EventTime:   timestamppb.Now(),
		Dimensions:  item.GetDimensions(),
		Context:     circumstances,
	}
}
