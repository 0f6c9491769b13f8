package tallygate

import "time"

// Item is one use of one meter.
type Item struct {
	// Meter is the meter's name in the catalog.
	Meter string
	// Amount is in the meter's smallest unit, 1 to 2^53 - 1.
	Amount int64
	// Dimensions are at most 16; keys up to 64 and values up to 256 characters.
	Dimensions map[string]string
}

// EventContext is what the caller knows about the circumstances of a use. All of it is optional.
type EventContext struct {
	// SubjectID is who used it, inside the tenant.
	SubjectID string
	// ResourceID is what was used.
	ResourceID string
	// SessionID is the session in which it was used.
	SessionID string
	// Region is where it was used.
	Region string
	// SKU is the stock-keeping unit it is sold as.
	SKU string
	// CorrelationID ties it to the caller's own traces.
	CorrelationID string
	// SDK replaces this client's own name and version.
	SDK string
}

// CheckAndConsumeRequest is a charge to decide.
type CheckAndConsumeRequest struct {
	// Tenant is who pays.
	Tenant string
	// Items are 1 to 64, charged together or not at all.
	Items []Item
	// OperationID names the call, the same over its repeats. Empty: a random one is made.
	OperationID string
	// Context is stored with each event.
	Context EventContext
	// MinDurability is the least that is accepted.
	MinDurability Durability
}

// CheckRequest is a charge to try without charging.
type CheckRequest struct {
	// Tenant is who would pay.
	Tenant string
	// Items are 1 to 64.
	Items []Item
	// Context holds the circumstances, where limits count by them.
	Context EventContext
}

// QuotaRequest says which limits to read or to watch.
type QuotaRequest struct {
	// Tenant is whose limits.
	Tenant string
	// Meters are those whose limits are wanted; none means all.
	Meters []string
	// Dimensions say, for limits per dimension, whose counters to read.
	Dimensions map[string]string
}

// ReserveRequest is what to hold for work whose cost is not known yet.
type ReserveRequest struct {
	// Tenant is who pays.
	Tenant string
	// Items are 1 to 64, held together or not at all: what the work costs at most, or is thought to.
	Items []Item
	// OperationID names the call, the same over its repeats. Empty: a random one is made.
	OperationID string
	// TTL is after how long the units come back by themselves: 1 ms to 24 h, 60 s unless set.
	TTL time.Duration
	// Context is stored with each event.
	Context EventContext
	// Excess says what [Reservation.Commit] does with usage beyond the reservation; empty is the
	// same as [ExcessRecord], as the work is done by then.
	Excess Excess
}

// Excess says what to do with usage beyond what was reserved.
type Excess string

// What can be done with excess.
const (
	// ExcessAsk asks the limits for the difference; what they refuse is not recorded.
	ExcessAsk Excess = "ASK"
	// ExcessRecord records it whatever the limits say: the work is done.
	ExcessRecord Excess = "RECORD"
)

// CommitRequest is what a reservation came to.
type CommitRequest struct {
	// Tenant is who pays.
	Tenant string
	// ReservationID is as Reserve gave it.
	ReservationID string
	// Amounts are what was used per item of the reservation, 0 for none. None: what was reserved.
	Amounts []int64
	// OperationID names the call. Empty: one is made of the reservation's id.
	OperationID string
	// Excess says what to do with what goes beyond; empty is the same as [ExcessAsk].
	Excess Excess
}

// ReleaseRequest is what to give back.
type ReleaseRequest struct {
	// Tenant is who would have paid.
	Tenant string
	// ReservationID is as Reserve gave it.
	ReservationID string
	// OperationID names the call. Empty: one is made of the reservation's id.
	OperationID string
}

// ExtendRequest is what to keep.
type ExtendRequest struct {
	// Tenant is who pays.
	Tenant string
	// ReservationID is as Reserve gave it.
	ReservationID string
	// TTL counts from now: 1 ms to 24 h, 60 s unless set.
	TTL time.Duration
}

// RefundRequest is what to take back.
type RefundRequest struct {
	// Tenant gets it back.
	Tenant string
	// EventID is the event, as a reply named it.
	EventID string
	// Amount is at most what is left of the event; 0 means all that is left.
	Amount int64
	// OperationID names the call, the same over its repeats. Empty: a random one is made.
	OperationID string
	// Reason is for people; at most 256 characters.
	Reason string
}

// Event is usage that has already happened.
type Event struct {
	// Tenant is who pays.
	Tenant string
	// Meter is the meter's name in the catalog.
	Meter string
	// Amount is in the meter's smallest unit, 1 to 2^53 - 1.
	Amount int64
	// EventID is unique per tenant, the same over repeats. Empty: a random one is made.
	EventID string
	// OperationID names the logical call; empty means the event's id.
	OperationID string
	// Time is when it was used; zero means now.
	Time time.Time
	// Dimensions are at most 16; keys up to 64 and values up to 256 characters.
	Dimensions map[string]string
	// Context holds the circumstances.
	Context EventContext
	// Metadata is at most 4 KiB as JSON. Numbers are doubles: send large ids as strings.
	Metadata map[string]any
	// MinDurability is the least that is accepted.
	MinDurability Durability
}
