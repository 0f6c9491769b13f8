package tallygate

import "time"

// LimitState says where a tenant stands against a limit.
type LimitState string

// The states of a limit. A newer service may send others.
const (
	StateOK             LimitState = "OK"
	StateWarning        LimitState = "WARNING"
	StateExceeded       LimitState = "EXCEEDED"
	StateShadowExceeded LimitState = "SHADOW_EXCEEDED"
)

// Durability says how safely an accepted event is held. The zero value asks for the call's default.
type Durability string

// The levels of durability, the least safe first.
const (
	// DurabilityBuffered is written to the journal, not yet synced: survives the process.
	DurabilityBuffered Durability = "BUFFERED"
	// DurabilityRedis is in Redis.
	DurabilityRedis Durability = "REDIS"
	// DurabilityJournal is synced to the sidecar's own disk.
	DurabilityJournal Durability = "JOURNAL"
	// DurabilityPostgres is committed to the ledger.
	DurabilityPostgres Durability = "POSTGRES"
)

// LimitStatus is one limit as it stood when the call was decided.
type LimitStatus struct {
	LimitID string
	Meter   string
	State   LimitState
	// Used counts this call too, where it was granted.
	Used int64
	// Limit is in the meter's smallest unit; of a rate it is the burst.
	Limit int64
	// Remaining is never below 0.
	Remaining int64
	// ResetsAt is zero where there is no such time.
	ResetsAt time.Time
	// TenantID is whose limit it is: the tenant's, or one of its parents'.
	TenantID string
	// Scope is "KEY=VALUE" for a limit per dimension, else empty.
	Scope string
	// Unlimited says that there is no bound; Limit and Remaining are 2^53 - 1.
	Unlimited bool
}

// Decision is whether work may be done.
type Decision struct {
	// Allowed is the answer. If it is false, nothing was charged.
	Allowed bool
	// Limits are those that applied, in the catalog's order; empty when Local.
	Limits []LimitStatus
	// RefusedBy is the id of the first limit that refused; empty when allowed.
	RefusedBy string
	// RetryAfter is when the same call could pass; 0 when allowed, or when it can never pass.
	RetryAfter time.Duration
	// Replayed says that this is the stored answer of an earlier call with the same operation id.
	Replayed bool
	// Durability is how safely the events are held; empty when refused.
	Durability Durability
	// EventIDs are one per item, in order; empty when refused.
	EventIDs []string
	// Degraded says that the counters could not be reached, and the limits' own rules decided.
	Degraded bool
	// Local says that the sidecar did not answer, and the client's policy decided.
	Local bool
	// OperationID named the call over all its retries.
	OperationID string
}

// Outcome says what became of a reservation.
type Outcome string

// The outcomes of a reservation.
const (
	OutcomeCommitted          Outcome = "COMMITTED"
	OutcomeCommittedPartially Outcome = "COMMITTED_PARTIALLY"
	OutcomeReleased           Outcome = "RELEASED"
	OutcomeExtended           Outcome = "EXTENDED"
	OutcomeAlreadyCommitted   Outcome = "ALREADY_COMMITTED"
	OutcomeAlreadyReleased    Outcome = "ALREADY_RELEASED"
	OutcomeExpired            Outcome = "EXPIRED"
)

// Settlement is how a reservation was settled.
type Settlement struct {
	// Outcome is what the service said; empty where it was not asked, or did not answer.
	Outcome Outcome
	// Limits are as they stand now; empty unless settled now.
	Limits []LimitStatus
	// RefusedBy is, of COMMITTED_PARTIALLY, the first limit that refused the excess.
	RefusedBy string
	// Unrecorded is, of COMMITTED_PARTIALLY, what was used but not recorded, per item.
	Unrecorded []int64
	// Replayed says that this is the stored answer of an earlier call.
	Replayed bool
	// Durability is how safely the events are held.
	Durability Durability
	// EventIDs are the events recorded, or to be recorded where Buffered is set.
	EventIDs []string
	// ExpiresAt is the new end of a reservation that was extended.
	ExpiresAt time.Time
	// Buffered says that no answer came, and the client's buffer has the commit.
	Buffered bool
	// Recorded says that the reservation was gone, and its usage was recorded beside it.
	Recorded bool
	// Local says that the reservation was granted by the client's policy.
	Local bool
	// OperationID named the call over all its retries.
	OperationID string
}

// Quota is where a tenant stands.
type Quota struct {
	// Limits are in the catalog's order.
	Limits []LimitStatus
	// Plan is the plan the tenant is on.
	Plan string
	// CatalogVersion is the version of the catalog that says so.
	CatalogVersion int64
}

// Receipt says that an event was accepted.
type Receipt struct {
	// EventID is the event's id, as it travels on.
	EventID string
	// Replayed says that the same event had been accepted before.
	Replayed bool
	// Durability is how safely the event is held.
	Durability Durability
	// Degraded says that the event is held by this sidecar alone for now.
	Degraded bool
}

// Refund says what was taken back.
type Refund struct {
	// EventID is the id of the negative event.
	EventID string
	// Amount is what was taken back, above 0.
	Amount int64
	// Replayed says that this is the stored answer of an earlier call.
	Replayed bool
	// Durability is how safely the event is held.
	Durability Durability
	// Limits are as they stand now.
	Limits []LimitStatus
	// OperationID named the call over all its retries.
	OperationID string
}

// DecisionResult is what became of one request of a list: a decision, or why there is none.
type DecisionResult struct {
	Decision *Decision
	Err      error
}

// ReceiptResult is what became of one event of a list: a receipt, or why there is none.
type ReceiptResult struct {
	Receipt *Receipt
	Err     error
}
