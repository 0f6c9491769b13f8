package main

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/tallygate/tallygate/clients/go"
)

// request is one line: the fields of all operations together.
type request struct {
	ID     json.RawMessage `json:"id"`
	Do     string          `json:"do"`
	Client string          `json:"client"`

	Target    string `json:"target"`
	TLS       *files `json:"tls"`
	OnAbsent  string `json:"on_absent"`
	TimeoutMS int64  `json:"timeout_ms"`
	Retry     *bool  `json:"retry"`
	Buffer    *room  `json:"buffer"`

	Tenant        string            `json:"tenant"`
	Items         []item            `json:"items"`
	OperationID   string            `json:"operation_id"`
	MinDurability string            `json:"min_durability"`
	Context       circumstances     `json:"context"`
	Meters        []string          `json:"meters"`
	Requests      []request         `json:"requests"`
	TTLMS         int64             `json:"ttl_ms"`
	As            string            `json:"as"`
	Handle        string            `json:"handle"`
	ReservationID string            `json:"reservation_id"`
	Amounts       []int64           `json:"amounts"`
	Excess        string            `json:"excess"`
	Work          string            `json:"work"`
	Actual        []int64           `json:"actual"`
	HoldMS        int64             `json:"hold_ms"`
	EventID       string            `json:"event_id"`
	Amount        int64             `json:"amount"`
	Meter         string            `json:"meter"`
	EventTimeMS   int64             `json:"event_time_ms"`
	Dimensions    map[string]string `json:"dimensions"`
	Metadata      map[string]any    `json:"metadata"`

	AfterMS int64    `json:"after_ms"`
	Call    *request `json:"call"`
	N       int      `json:"n"`

	Calls       int    `json:"calls"`
	Concurrency int    `json:"concurrency"`
	How         string `json:"how"`
	Warmup      int    `json:"warmup"`
}

type item struct {
	Meter      string            `json:"meter"`
	Amount     int64             `json:"amount"`
	Dimensions map[string]string `json:"dimensions"`
}

type circumstances struct {
	SubjectID     string `json:"subject_id"`
	ResourceID    string `json:"resource_id"`
	SessionID     string `json:"session_id"`
	Region        string `json:"region"`
	SKU           string `json:"sku"`
	CorrelationID string `json:"correlation_id"`
	SDK           string `json:"sdk"`
}

type files struct {
	CA         string `json:"ca_file"`
	Cert       string `json:"cert_file"`
	Key        string `json:"key_file"`
	ServerName string `json:"server_name"`
}

type room struct {
	MaxEvents     int    `json:"max_events"`
	SpoolDir      string `json:"spool_dir"`
	Batch         int    `json:"batch"`
	FlushMS       int64  `json:"flush_ms"`
	SpoolMaxBytes int64  `json:"spool_max_bytes"`
	SpoolSyncMS   *int64 `json:"spool_sync_ms"`
}

type reply = map[string]any

// kinds names the sentinels as every driver does.
var kinds = []struct {
	is   error
	kind string
}{
	{tallygate.ErrInvalidRequest, "InvalidRequest"},
	{tallygate.ErrUnavailable, "Unavailable"},
	{tallygate.ErrDeadlineExceeded, "DeadlineExceeded"},
	{tallygate.ErrCancelled, "Cancelled"},
	{tallygate.ErrUnauthenticated, "Unauthenticated"},
	{tallygate.ErrPermissionDenied, "PermissionDenied"},
	{tallygate.ErrNotFound, "NotFound"},
	{tallygate.ErrFailedPrecondition, "FailedPrecondition"},
	{tallygate.ErrResourceExhausted, "ResourceExhausted"},
	{tallygate.ErrInternal, "Internal"},
	{tallygate.ErrQuotaExceeded, "QuotaExceeded"},
	{tallygate.ErrBufferFull, "BufferFull"},
	{tallygate.ErrClosed, "Closed"},
	{tallygate.ErrSpoolLocked, "SpoolInUse"},
	{errWork, "WorkFailed"},
}

// codeNames are the statuses as gRPC's specification spells them.
var codeNames = strings.Fields(`OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND
	ALREADY_EXISTS PERMISSION_DENIED RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE
	UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED`)

func fault(err error) reply {
	out := reply{"kind": "Other", "message": err.Error()}
	for _, each := range kinds {
		if errors.Is(err, each.is) {
			out["kind"] = each.kind
			break
		}
	}
	var failure *tallygate.Error
	if errors.As(err, &failure) {
		out["code"] = codeNames[failure.Code]
		out["reason"] = failure.Reason
		out["field"] = failure.Field
		out["operation_id"] = failure.OperationID
		out["retry_after_ms"] = milliseconds(failure.RetryAfter)
	}
	var refused *tallygate.QuotaExceededError
	if errors.As(err, &refused) {
		out["operation_id"] = refused.Decision.OperationID
		out["refused_by"] = refused.Decision.RefusedBy
	}
	return out
}

func outcome(ok reply, err error) reply {
	if err != nil {
		return reply{"error": fault(err)}
	}
	return reply{"ok": ok}
}

func milliseconds(wait time.Duration) any {
	if wait == 0 {
		return nil
	}
	return wait.Milliseconds()
}

func limits(all []tallygate.LimitStatus) []reply {
	out := []reply{}
	for _, each := range all {
		out = append(out, reply{
			"limit_id": each.LimitID, "meter": each.Meter, "state": each.State, "used": each.Used,
			"limit": each.Limit, "remaining": each.Remaining, "unlimited": each.Unlimited,
			"scope": each.Scope, "tenant_id": each.TenantID,
		})
	}
	return out
}

func decision(told *tallygate.Decision) reply {
	return reply{
		"allowed": told.Allowed, "refused_by": told.RefusedBy,
		"retry_after_ms": milliseconds(told.RetryAfter), "replayed": told.Replayed,
		"durability": told.Durability, "event_ids": list(told.EventIDs), "degraded": told.Degraded,
		"local": told.Local, "operation_id": told.OperationID, "limits": limits(told.Limits),
	}
}

func settlement(told *tallygate.Settlement) reply {
	return reply{
		"outcome": told.Outcome, "replayed": told.Replayed, "unrecorded": told.Unrecorded,
		"event_ids": list(told.EventIDs), "buffered": told.Buffered, "recorded": told.Recorded,
		"local": told.Local, "operation_id": told.OperationID,
	}
}

func receipt(told *tallygate.Receipt) reply {
	return reply{
		"event_id": told.EventID, "replayed": told.Replayed, "durability": told.Durability,
		"degraded": told.Degraded,
	}
}

func list(ids []string) []string { return append([]string{}, ids...) }

func items(all []item) []tallygate.Item {
	out := make([]tallygate.Item, len(all))
	for index, each := range all {
		out[index] = tallygate.Item(each)
	}
	return out
}

func (r *request) event() tallygate.Event {
	event := tallygate.Event{
		Tenant: r.Tenant, Meter: r.Meter, Amount: r.Amount, EventID: r.EventID,
		OperationID: r.OperationID, Dimensions: r.Dimensions, Metadata: r.Metadata,
		Context:       tallygate.EventContext(r.Context),
		MinDurability: tallygate.Durability(r.MinDurability),
	}
	if r.EventTimeMS != 0 {
		event.Time = time.UnixMilli(r.EventTimeMS)
	}
	return event
}

func (r *request) charge() tallygate.CheckAndConsumeRequest {
	return tallygate.CheckAndConsumeRequest{
		Tenant: r.Tenant, Items: items(r.Items), OperationID: r.OperationID,
		Context:       tallygate.EventContext(r.Context),
		MinDurability: tallygate.Durability(r.MinDurability),
	}
}

func (r *request) reservation() tallygate.ReserveRequest {
	return tallygate.ReserveRequest{
		Tenant: r.Tenant, Items: items(r.Items), OperationID: r.OperationID,
		TTL: ms(r.TTLMS), Context: tallygate.EventContext(r.Context),
		Excess: tallygate.Excess(r.Excess),
	}
}

func (r *request) options() []tallygate.CallOption {
	if r.TimeoutMS == 0 {
		return nil
	}
	return []tallygate.CallOption{tallygate.WithCallTimeout(ms(r.TimeoutMS))}
}

func ms(count int64) time.Duration { return time.Duration(count) * time.Millisecond }
