package metering_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tallygate/tallygate/clients/go"
	"github.com/tallygate/tallygate/clients/go/metering"
)

var now = time.Unix(1_700_000_000, 0)

// Fields are those of the draft: quoted, bounded, and with what the app has said.
func TestFields(t *testing.T) {
	fields := metering.Fields{
		QuotaUnits: map[string]string{"egress": "content-bytes"},
		Windows:    map[string]time.Duration{"per-minute": time.Minute},
	}
	decision := tallygate.Decision{Limits: []tallygate.LimitStatus{
		{LimitID: "per-minute", Limit: 100, Remaining: 41, ResetsAt: now.Add(16200 * time.Millisecond)},
		{LimitID: "bytes", Meter: "egress", Limit: 1 << 53, Remaining: 1 << 52},
		{LimitID: `a"b\c` + "ü", Limit: 1, Remaining: 0, ResetsAt: now.Add(-time.Hour)},
		{LimitID: "per", Scope: "model=x", Limit: 3, Remaining: 2},
		{LimitID: "none", Unlimited: true},
		{LimitID: "shadow", State: tallygate.StateShadowExceeded, Limit: 1},
	}}
	policy, limit := fields.Of(decision, now)
	wantPolicy := `"per-minute";q=100;w=60, "bytes";q=999999999999999;qu="content-bytes", ` +
		`"a\"b\\c?";q=1, "per";q=3;pk=:bW9kZWw9eA==:`
	wantLimit := `"per-minute";r=41;t=17, "bytes";r=999999999999999, ` +
		`"a\"b\\c?";r=0;t=0, "per";r=2;pk=:bW9kZWw9eA==:`
	if policy != wantPolicy || limit != wantLimit {
		t.Errorf("was\n%s\n%s", policy, limit)
	}
}

// The limit that refused comes first, of several alike the one with the least left, ten at most.
func TestFieldsAreFew(t *testing.T) {
	decision := tallygate.Decision{RefusedBy: "it", RetryAfter: 1100 * time.Millisecond}
	for index := range 12 {
		decision.Limits = append(decision.Limits, tallygate.LimitStatus{
			LimitID: fmt.Sprintf("l%d", index/2), Remaining: int64(9 - index), Limit: 9,
			Scope: fmt.Sprintf("k=%d", index/2),
		})
	}
	for _, remaining := range []int64{5, 0, 7} {
		decision.Limits = append(decision.Limits, tallygate.LimitStatus{
			LimitID: "it", Remaining: remaining, Limit: 9, ResetsAt: now.Add(time.Hour),
		})
	}
	_, limit := metering.Fields{}.Of(decision, now)
	want := `"it";r=0;t=2, "l0";r=8;pk=:az0w:, "l1";r=6;pk=:az0x:, "l2";r=4;pk=:az0y:, ` +
		`"l3";r=2;pk=:az0z:, "l4";r=0;pk=:az00:, "l5";r=-2;pk=:az01:`
	if limit != want {
		t.Errorf("was %s", limit)
	}
}

// A request that is not metered has a charge that does nothing, and says so.
func TestUnmetered(t *testing.T) {
	charge := metering.FromContext(context.Background())
	charge.Cancel()
	if err := charge.Set("requests", 1); !errors.Is(err, metering.ErrUnmetered) {
		t.Errorf("was %v", err)
	}
	if charge.OperationID() != "" || charge.Decision().Allowed {
		t.Error("it was decided")
	}
}
