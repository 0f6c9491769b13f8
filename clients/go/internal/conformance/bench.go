package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tallygate/tallygate/clients/go"
	"github.com/tallygate/tallygate/clients/go/tallygatepb"
)

const benchTimeout = time.Second

// bench measures CheckAndConsume by the client, or by the bare stub beside it.
func (d *driver) bench(asked *request) (reply, error) {
	once, done, err := d.caller(asked)
	if err != nil {
		return nil, err
	}
	defer done()
	if _, err := run(once, asked.Warmup, asked.Concurrency); err != nil {
		return nil, err
	}
	begun := time.Now()
	took, err := run(once, asked.Calls, asked.Concurrency)
	if err != nil {
		return nil, err
	}
	seconds := time.Since(begun).Seconds()
	slices.Sort(took)
	var all time.Duration
	for _, each := range took {
		all += each
	}
	mean, p99 := 0.0, 0.0
	if len(took) > 0 {
		mean = float64(all.Nanoseconds()) / float64(len(took)) / 1000
		p99 = float64(took[len(took)*99/100].Nanoseconds()) / 1000
	}
	return reply{"seconds": seconds, "mean_us": mean, "p99_us": p99}, nil
}

// caller returns one call, and what ends the calls.
func (d *driver) caller(asked *request) (func() error, func(), error) {
	if asked.How == "client" {
		client := d.client(asked.Client)
		if client == nil {
			return nil, nil, fmt.Errorf("no such client is open: %s", asked.Client)
		}
		charge := tallygate.CheckAndConsumeRequest{Tenant: asked.Tenant, Items: items(asked.Items)}
		return func() error {
			_, err := client.CheckAndConsume(context.Background(), charge)
			return err
		}, func() {}, nil
	}
	d.mu.Lock()
	target := d.targets[asked.Client]
	d.mu.Unlock()
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return nil, nil, err
	}
	stub := tallygatepb.NewQuotaServiceClient(conn)
	var made []*tallygatepb.Item
	for _, each := range asked.Items {
		made = append(made, &tallygatepb.Item{Meter: each.Meter, Amount: each.Amount})
	}
	prefix := "bare-" + strconv.FormatInt(time.Now().UnixNano(), 36) + "-"
	var count atomic.Int64
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), benchTimeout)
		defer cancel()
		_, err := stub.CheckAndConsume(ctx, &tallygatepb.CheckAndConsumeRequest{
			TenantId: asked.Tenant, Items: made,
			OperationId: prefix + strconv.FormatInt(count.Add(1), 10),
		})
		return err
	}, func() { _ = conn.Close() }, nil
}

// run makes calls by so many callers at once, and returns how long each took.
func run(once func() error, calls, callers int) ([]time.Duration, error) {
	callers = max(callers, 1)
	took := make([]time.Duration, calls)
	faults := make([]error, callers)
	var next atomic.Int64
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for faults[caller] == nil {
				index := int(next.Add(1)) - 1
				if index >= calls {
					return
				}
				begun := time.Now()
				faults[caller] = once()
				took[index] = time.Since(begun)
			}
		})
	}
	group.Wait()
	for _, fault := range faults {
		if fault != nil {
			return nil, fault
		}
	}
	return took, nil
}
