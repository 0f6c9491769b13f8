package tallygate

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tallygate/tallygate/clients/go/internal/fake"
)

var errBroken = errors.New("broken")

func hold(amounts ...int64) ReserveRequest {
	request := ReserveRequest{Tenant: "acme"}
	for _, amount := range amounts {
		request.Items = append(request.Items, Item{Meter: "requests", Amount: amount})
	}
	return request
}

// Work is committed with what it says it used.
func TestDoCommits(t *testing.T) {
	sidecar := fake.Start(t, 10)
	client := open(t, sidecar)
	work := func(ctx context.Context, held *Reservation) error {
		if sidecar.Used() != 8 || held.Items()[0].Amount != 8 {
			t.Errorf("%d units are held", sidecar.Used())
		}
		held.SetActual(3)
		return ctx.Err()
	}
	settled := must(client.Do(within(t), hold(8), work))(t)
	if settled.Outcome != OutcomeCommitted || sidecar.Used() != 3 {
		t.Errorf("was %+v with %d used", settled, sidecar.Used())
	}
}

// Work that fails or panics is released, and its own fault is what the caller sees.
func TestDoReleases(t *testing.T) {
	sidecar := fake.Start(t, 10)
	client := open(t, sidecar)
	broken := func(context.Context, *Reservation) error { return errBroken }
	if _, err := client.Do(within(t), hold(8), broken); !errors.Is(err, errBroken) {
		t.Errorf("was %v", err)
	}
	func() {
		defer func() {
			if fault := recover(); fault != "panicked" {
				t.Errorf("was %v", fault)
			}
		}()
		panics := func(context.Context, *Reservation) error { panic("panicked") }
		_, _ = client.Do(within(t), hold(8), panics)
	}()
	if sidecar.Used() != 0 || sidecar.Calls("Release") != 2 || sidecar.Calls("Commit") != 0 {
		t.Errorf("%d units are held", sidecar.Used())
	}
}

// Work that is refused is not begun.
func TestDoRefused(t *testing.T) {
	client := open(t, fake.Start(t, 10))
	work := func(context.Context, *Reservation) error {
		t.Error("it was begun")
		return nil
	}
	_, err := client.Do(within(t), hold(11), work)
	var refused *QuotaExceededError
	if !errors.As(err, &refused) || !errors.Is(err, ErrQuotaExceeded) ||
		refused.Decision.RefusedBy != "total" {
		t.Errorf("was %v", err)
	}
}

// A settlement is made even when the caller's context has ended within the work.
func TestDoOutlivesItsContext(t *testing.T) {
	sidecar := fake.Start(t, 10)
	client := open(t, sidecar)
	ctx, cancel := context.WithCancel(within(t))
	work := func(context.Context, *Reservation) error {
		cancel()
		return nil
	}
	must(client.Do(ctx, hold(8), work))(t)
	if len(sidecar.Events()) != 1 {
		t.Error("the work was not recorded")
	}
}

// Work that goes on is kept alive, and no longer than it goes on.
func TestKeepAlive(t *testing.T) {
	sidecar := fake.Start(t, 10)
	client := open(t, sidecar)
	request := hold(8)
	request.TTL = 40 * time.Millisecond
	work := func(context.Context, *Reservation) error {
		sidecar.Await(t, func() bool { return sidecar.Calls("ExtendReservation") >= 2 })
		return nil
	}
	must(client.Do(within(t), request, work))(t)
	client.beside.Wait() // It ends: the test would not.
}

// Usage of a reservation that is gone is recorded beside it, under the ids of its commit.
func TestCommitOfWhatIsGone(t *testing.T) {
	sidecar := fake.Start(t, 100)
	client := open(t, sidecar)
	held := must(client.Reserve(within(t), hold(10, 20)))(t)
	sidecar.Expire()
	held.SetActual(15, 7)
	settled := must(held.Commit(within(t)))(t)
	if settled.Outcome != OutcomeExpired || !settled.Recorded {
		t.Errorf("was %+v", settled)
	}
	commit := held.ID + "#c"
	for id, amount := range map[string]int64{commit + ":0": 10, commit + ":1": 7, commit + ":2": 5} {
		if got := sidecar.Events()[id].GetAmount(); got != amount {
			t.Errorf("%s was %d", id, got)
		}
	}
	if again := must(held.Commit(within(t)))(t); again != settled {
		t.Errorf("was %+v", again)
	}
}

// A commit that gets no answer is the buffer's, whose fallback is recorded where it comes too late.
func TestCommitWithoutAnAnswer(t *testing.T) {
	sidecar := fake.Start(t, 100)
	client := open(t, sidecar, WithBuffer(BufferOptions{}))
	held := must(client.Reserve(within(t), hold(10)))(t)
	sidecar.Fail("Commit", fake.Away(), fake.Away())
	sidecar.Expire()
	settled := must(held.Commit(within(t)))(t)
	if !settled.Buffered || settled.Outcome != "" || len(settled.EventIDs) != 1 {
		t.Errorf("was %+v", settled)
	}
	if err := client.Buffer().Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := sidecar.Events()[settled.EventIDs[0]].GetAmount(); got != 10 {
		t.Errorf("was %d", got)
	}
	if stats := client.Stats(); stats.Sent != 1 || stats.Pending != 0 {
		t.Errorf("was %+v", stats)
	}
	// Without a buffer the error is the caller's, who may commit again.
	bare := open(t, sidecar)
	held = must(bare.Reserve(within(t), hold(10)))(t)
	sidecar.Fail("Commit", fake.Away())
	if _, err := held.Commit(within(t)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("was %v", err)
	}
	must(held.Commit(within(t)))(t)
}

// A reservation of the local policy is recorded by what it came to, and released for nothing.
func TestLocalReservation(t *testing.T) {
	sidecar := fake.Start(t, 100)
	client := open(t, sidecar, WithOnAbsent(Open), WithBuffer(BufferOptions{}))
	sidecar.Fail("Reserve", fake.Away(), fake.Away())
	work := func(_ context.Context, held *Reservation) error {
		held.SetActual(4)
		return nil
	}
	settled := must(client.Do(within(t), hold(10), work))(t)
	broken := func(context.Context, *Reservation) error { return errBroken }
	if _, err := client.Do(within(t), hold(10), broken); !errors.Is(err, errBroken) {
		t.Errorf("was %v", err)
	}
	if err := client.Buffer().Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	events := sidecar.Events()
	if !settled.Local || len(events) != 1 || events[settled.EventIDs[0]].GetAmount() != 4 {
		t.Errorf("was %+v: %v", settled, events)
	}
}

// Amounts that do not fit the items are refused before they are sent.
func TestAmountsThatDoNotFit(t *testing.T) {
	client := open(t, fake.Start(t, 100))
	held := must(client.Reserve(within(t), hold(10)))(t)
	held.SetActual(1, 2)
	var failure *Error
	if _, err := held.Commit(within(t)); !errors.As(err, &failure) || failure.Field != "amounts" {
		t.Errorf("was %v", err)
	}
}
