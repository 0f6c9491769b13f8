package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tallygate/tallygate/clients/go"
)

var errWork = errors.New("the work failed")

const (
	closeTimeout = 5 * time.Second
	flushTimeout = 5 * time.Second
)

// driver holds what was opened, by the names that the cases gave.
type driver struct {
	mu      sync.Mutex
	clients map[string]*tallygate.Client
	targets map[string]string
	held    map[string]*tallygate.Reservation
}

func newDriver() *driver {
	return &driver{
		clients: map[string]*tallygate.Client{},
		targets: map[string]string{},
		held:    map[string]*tallygate.Reservation{},
	}
}

func (d *driver) answer(asked *request) reply {
	switch asked.Do {
	case "hello":
		return outcome(reply{"sdk": "tallygate-go/" + tallygate.Version, "language": "go"}, nil)
	case "open":
		return outcome(reply{}, d.open(asked))
	case "parallel":
		return d.parallel(asked)
	case "cancel_call":
		return d.cancelled(asked)
	case "bench":
		return outcome(d.bench(asked))
	}
	return d.do(context.Background(), asked)
}

func (d *driver) client(name string) *tallygate.Client {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.clients[name]
}

func (d *driver) open(asked *request) error {
	options := []tallygate.Option{tallygate.WithTarget(asked.Target)}
	if asked.OnAbsent != "" {
		options = append(options, tallygate.WithOnAbsent(tallygate.Policy(asked.OnAbsent)))
	}
	if asked.TimeoutMS != 0 {
		options = append(options, tallygate.WithTimeout(ms(asked.TimeoutMS)))
	}
	if asked.Retry != nil && !*asked.Retry {
		options = append(options, tallygate.WithoutRetry())
	}
	if given := asked.TLS; given != nil {
		config, err := tallygate.LoadTLS(given.CA, given.Cert, given.Key, given.ServerName)
		if err != nil {
			return err
		}
		options = append(options, tallygate.WithTLS(config))
	}
	if given := asked.Buffer; given != nil {
		buffer := tallygate.BufferOptions{
			MaxEvents: given.MaxEvents, BatchMax: given.Batch, FlushInterval: ms(given.FlushMS),
			SpoolDir: given.SpoolDir, SpoolMaxBytes: given.SpoolMaxBytes,
		}
		if given.SpoolSyncMS != nil {
			buffer.SpoolSync = ms(*given.SpoolSyncMS)
			if buffer.SpoolSync == 0 {
				buffer.SpoolSync = -1
			}
		}
		options = append(options, tallygate.WithBuffer(buffer))
	}
	client, err := tallygate.New(options...)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clients[asked.Client] = client
	d.targets[asked.Client] = asked.Target
	return nil
}

// do does one call, of a client that is open.
func (d *driver) do(ctx context.Context, asked *request) reply {
	client := d.client(asked.Client)
	if client == nil {
		return reply{"error": reply{"kind": "Other", "message": "no such client is open"}}
	}
	switch asked.Do {
	case "check_and_consume":
		return decided(client.CheckAndConsume(ctx, asked.charge(), asked.options()...))
	case "check":
		return decided(client.Check(ctx, tallygate.CheckRequest{
			Tenant: asked.Tenant, Items: items(asked.Items),
			Context: tallygate.EventContext(asked.Context),
		}, asked.options()...))
	case "get_quota":
		return d.quota(ctx, client, asked)
	case "batch_check_and_consume":
		return d.batchCharge(ctx, client, asked)
	case "reserve", "commit", "release", "extend", "with_reserve", "refund":
		return d.hold(ctx, client, asked)
	default:
		return d.tell(ctx, client, asked)
	}
}

func decided(told *tallygate.Decision, err error) reply {
	if err != nil {
		return outcome(nil, err)
	}
	return outcome(decision(told), nil)
}

func settled(told *tallygate.Settlement, err error) reply {
	if err != nil {
		return outcome(nil, err)
	}
	return outcome(settlement(told), nil)
}

func (d *driver) quota(ctx context.Context, client *tallygate.Client, asked *request) reply {
	told, err := client.Quota(ctx, tallygate.QuotaRequest{
		Tenant: asked.Tenant, Meters: asked.Meters, Dimensions: asked.Dimensions,
	}, asked.options()...)
	if err != nil {
		return outcome(nil, err)
	}
	return outcome(reply{
		"limits": limits(told.Limits), "plan": told.Plan, "catalog_version": told.CatalogVersion,
	}, nil)
}

func (d *driver) batchCharge(ctx context.Context, client *tallygate.Client, asked *request) reply {
	var charges []tallygate.CheckAndConsumeRequest
	for index := range asked.Requests {
		each := &asked.Requests[index]
		if each.Tenant == "" {
			each.Tenant = asked.Tenant
		}
		charges = append(charges, each.charge())
	}
	told, err := client.BatchCheckAndConsume(ctx, charges, asked.options()...)
	if err != nil {
		return outcome(nil, err)
	}
	results := []reply{}
	for _, each := range told {
		results = append(results, decided(each.Decision, each.Err))
	}
	return outcome(reply{"results": results}, nil)
}

// tell does what records usage, and what is about the client itself.
func (d *driver) tell(ctx context.Context, client *tallygate.Client, asked *request) reply {
	switch asked.Do {
	case "record":
		told, err := client.Record(ctx, asked.event(), asked.options()...)
		if err != nil {
			return outcome(nil, err)
		}
		return outcome(receipt(told), nil)
	case "batch_record":
		return d.batchRecord(ctx, client, asked)
	case "buffer_record":
		id, err := client.Buffer().Record(asked.event())
		return outcome(reply{"event_id": id}, err)
	case "flush":
		ctx, cancel := context.WithTimeout(ctx, orElse(ms(asked.TimeoutMS), flushTimeout))
		defer cancel()
		return outcome(reply{"flushed": client.Buffer().Flush(ctx) == nil}, nil)
	case "close":
		ctx, cancel := context.WithTimeout(ctx, orElse(ms(asked.TimeoutMS), closeTimeout))
		defer cancel()
		err := client.Close(ctx)
		if err != nil && !errors.Is(err, tallygate.ErrUnsent) {
			return outcome(nil, err)
		}
		return outcome(reply{"flushed": err == nil}, nil)
	case "stats":
		return outcome(counts(client.Stats()), nil)
	}
	message := fmt.Sprintf("no such operation: %s", asked.Do)
	return reply{"error": reply{"kind": "Other", "message": message}}
}

func (d *driver) batchRecord(ctx context.Context, client *tallygate.Client, asked *request) reply {
	var events []tallygate.Event
	for index := range asked.Requests {
		each := &asked.Requests[index]
		if each.Tenant == "" {
			each.Tenant = asked.Tenant
		}
		events = append(events, each.event())
	}
	told, err := client.BatchRecord(ctx, events, asked.options()...)
	if err != nil {
		return outcome(nil, err)
	}
	results := []reply{}
	for _, each := range told {
		if each.Err != nil {
			results = append(results, outcome(nil, each.Err))
			continue
		}
		results = append(results, outcome(receipt(each.Receipt), nil))
	}
	return outcome(reply{"results": results}, nil)
}

func counts(told tallygate.Stats) reply {
	return reply{
		"calls": told.Calls, "errors": told.Errors, "retries": told.Retries,
		"local_open": sum(told.LocalOpen), "local_closed": sum(told.LocalClosed),
		"recorded": told.Recorded, "sent": told.Sent, "replayed": told.Replayed,
		"rejected": told.Rejected, "refused_full": told.RefusedFull, "pending": told.Pending,
		"spool_bytes": told.SpoolBytes, "spool_torn": told.SpoolTorn,
	}
}

func sum(by map[string]uint64) (all uint64) {
	for _, count := range by {
		all += count
	}
	return all
}

func orElse(given, otherwise time.Duration) time.Duration {
	if given == 0 {
		return otherwise
	}
	return given
}

func (d *driver) parallel(asked *request) reply {
	results := make([]reply, asked.N)
	var group sync.WaitGroup
	for index := range results {
		group.Go(func() {
			call := *asked.Call
			inherit(&call, asked)
			results[index] = d.do(context.Background(), &call)
		})
	}
	group.Wait()
	return outcome(reply{"results": results}, nil)
}

func (d *driver) cancelled(asked *request) reply {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	time.AfterFunc(ms(asked.AfterMS), cancel)
	call := *asked.Call
	inherit(&call, asked)
	return d.do(ctx, &call)
}

// inherit has a call within another one be of its client and tenant, unless it says otherwise.
func inherit(call, from *request) {
	if call.Client == "" {
		call.Client = from.Client
	}
	if call.Tenant == "" {
		call.Tenant = from.Tenant
	}
}
