package tallygate

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tallygate/tallygate/clients/go/tallygatepb"
)

func itemsOf(items []Item) []*tallygatepb.Item {
	out := make([]*tallygatepb.Item, len(items))
	for index, item := range items {
		out[index] = &tallygatepb.Item{
			Meter: item.Meter, Amount: item.Amount, Dimensions: item.Dimensions,
		}
	}
	return out
}

func contextOf(given EventContext) *tallygatepb.EventContext {
	if given.SDK == "" {
		given.SDK = sdk
	}
	return &tallygatepb.EventContext{
		SubjectId:     given.SubjectID,
		ResourceId:    given.ResourceID,
		SessionId:     given.SessionID,
		Region:        given.Region,
		Sku:           given.SKU,
		CorrelationId: given.CorrelationID,
		Sdk:           given.SDK,
	}
}

func contextFrom(given *tallygatepb.EventContext) EventContext {
	return EventContext{
		SubjectID:     given.GetSubjectId(),
		ResourceID:    given.GetResourceId(),
		SessionID:     given.GetSessionId(),
		Region:        given.GetRegion(),
		SKU:           given.GetSku(),
		CorrelationID: given.GetCorrelationId(),
		SDK:           given.GetSdk(),
	}
}

func durabilityOf(given Durability) (tallygatepb.Durability, error) {
	if given == "" {
		return tallygatepb.Durability_DURABILITY_UNSPECIFIED, nil
	}
	number, known := tallygatepb.Durability_value["DURABILITY_"+string(given)]
	if !known {
		return 0, invalid("min_durability", string(given)+" is no durability", "")
	}
	return tallygatepb.Durability(number), nil
}

func durabilityFrom(given tallygatepb.Durability) Durability {
	if given == tallygatepb.Durability_DURABILITY_UNSPECIFIED {
		return ""
	}
	return Durability(strings.TrimPrefix(given.String(), "DURABILITY_"))
}

func excessOf(given Excess) (tallygatepb.Excess, error) {
	if given == "" {
		return tallygatepb.Excess_EXCESS_UNSPECIFIED, nil
	}
	number, known := tallygatepb.Excess_value["EXCESS_"+string(given)]
	if !known {
		return 0, invalid("excess", string(given)+" is neither ASK nor RECORD", "")
	}
	return tallygatepb.Excess(number), nil
}

func outcomeFrom(given tallygatepb.ReservationOutcome) Outcome {
	return Outcome(strings.TrimPrefix(given.String(), "RESERVATION_OUTCOME_"))
}

func timeFrom(given *timestamppb.Timestamp) time.Time {
	if given == nil {
		return time.Time{}
	}
	return given.AsTime()
}

func ttlOf(given time.Duration) *durationpb.Duration {
	if given == 0 {
		return nil
	}
	return durationpb.New(given)
}

func limitsFrom(given []*tallygatepb.LimitStatus) []LimitStatus {
	out := make([]LimitStatus, len(given))
	for index, each := range given {
		out[index] = LimitStatus{
			LimitID:   each.GetLimitId(),
			Meter:     each.GetMeter(),
			State:     LimitState(strings.TrimPrefix(each.GetState().String(), "LIMIT_STATE_")),
			Used:      each.GetUsed(),
			Limit:     each.GetLimit(),
			Remaining: each.GetRemaining(),
			ResetsAt:  timeFrom(each.GetResetsAt()),
			TenantID:  each.GetTenantId(),
			Scope:     each.GetScope(),
			Unlimited: each.GetUnlimited(),
		}
	}
	return out
}

func decisionFrom(given *tallygatepb.CheckAndConsumeResponse, operationID string) *Decision {
	return &Decision{
		Allowed:     given.GetAllowed(),
		Limits:      limitsFrom(given.GetLimits()),
		RefusedBy:   given.GetRefusedBy(),
		RetryAfter:  given.GetRetryAfter().AsDuration(),
		Replayed:    given.GetReplayed(),
		Durability:  durabilityFrom(given.GetDurability()),
		EventIDs:    given.GetEventIds(),
		Degraded:    given.GetDegraded(),
		OperationID: operationID,
	}
}

// recordOf returns the request that records an event, under an id that is made now unless it has
// one. Without a time of its own the service's counts: a caller that repeats an event under its id
// has to say the same, and would not know the time that was made for it.
func recordOf(event Event) (*tallygatepb.RecordUsageRequest, error) {
	event.EventID = orNew(event.EventID)
	var at *timestamppb.Timestamp
	if !event.Time.IsZero() {
		at = timestamppb.New(event.Time)
	}
	durability, err := durabilityOf(event.MinDurability)
	if err != nil {
		return nil, err
	}
	var metadata *structpb.Struct
	if event.Metadata != nil {
		if metadata, err = structpb.NewStruct(event.Metadata); err != nil {
			return nil, invalid("metadata", err.Error(), event.EventID)
		}
	}
	return &tallygatepb.RecordUsageRequest{
		TenantId:      event.Tenant,
		Meter:         event.Meter,
		Amount:        event.Amount,
		EventId:       event.EventID,
		OperationId:   event.OperationID,
		EventTime:     at,
		Dimensions:    event.Dimensions,
		Context:       contextOf(event.Context),
		Metadata:      metadata,
		MinDurability: durability,
	}, nil
}

func eventFrom(given *tallygatepb.RecordUsageRequest) Event {
	event := Event{
		Tenant:        given.GetTenantId(),
		Meter:         given.GetMeter(),
		Amount:        given.GetAmount(),
		EventID:       given.GetEventId(),
		OperationID:   given.GetOperationId(),
		Time:          timeFrom(given.GetEventTime()),
		Dimensions:    given.GetDimensions(),
		Context:       contextFrom(given.GetContext()),
		MinDurability: durabilityFrom(given.GetMinDurability()),
	}
	if given.GetMetadata() != nil {
		event.Metadata = given.GetMetadata().AsMap()
	}
	return event
}

func receiptFrom(given *tallygatepb.RecordUsageResponse) *Receipt {
	return &Receipt{
		EventID:    given.GetEventId(),
		Replayed:   given.GetReplayed(),
		Durability: durabilityFrom(given.GetDurability()),
		Degraded:   given.GetDegraded(),
	}
}
