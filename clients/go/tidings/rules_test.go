package tidings

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tidingsv1 "github.com/tidings-dev/tidings/clients/go/tidings/v1"
)

func TestVersionIsNewer(t *testing.T) {
	then := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	later := then.Add(time.Second)
	tests := map[string]struct {
		version, last version
		want          bool
	}{
		"the same":                       {version{then, 2, false}, version{then, 2, false}, false},
		"a later revision":               {version{then, 3, false}, version{then, 2, false}, true},
		"an earlier revision":            {version{then, 1, false}, version{then, 2, false}, false},
		"gone at its revision":           {version{then, 2, true}, version{then, 2, false}, true},
		"gone again":                     {version{then, 2, true}, version{then, 2, true}, false},
		"not gone after all":             {version{then, 2, false}, version{then, 2, true}, false},
		"another with the id":            {version{later, 1, false}, version{then, 7, true}, true},
		"an earlier one with the id":     {version{then, 9, false}, version{later, 1, false}, false},
		"partial, a later revision":      {version{time.Time{}, 3, false}, version{then, 2, false}, true},
		"partial, the same revision":     {version{time.Time{}, 2, false}, version{then, 2, false}, false},
		"the same revision as a partial": {version{then, 2, false}, version{time.Time{}, 2, false}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := test.version.isNewer(test.last); got != test.want {
				t.Errorf("isNewer is %v, want %v", got, test.want)
			}
		})
	}
}

// A partial change does not say when its event was created; what was known of that stays known.
func TestMemoryKeepsCreationThroughPartialChanges(t *testing.T) {
	then := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	m := newMemory()
	for _, v := range []version{{created: then, revision: 1}, {revision: 2}, {created: then.Add(time.Second), revision: 1}} {
		if !m.admit("a", v) {
			t.Errorf("%v is not admitted", v)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := newMemory()
	id := func(i int) string { return fmt.Sprint("event-", i) }
	for i := range memoryMax + 100 {
		m.admit(id(i), version{revision: 1})
	}
	if m.admit(id(0), version{revision: 1}) {
		t.Error("an event of the running snapshot is forgotten")
	}
	m.synced()
	if len(m.resources) != memoryMax || m.order.Len() != memoryMax {
		t.Errorf("%d events are remembered after the snapshot, want %d", len(m.resources), memoryMax)
	}
	// The oldest that is left changes; the next to be forgotten is the one after it.
	if !m.admit(id(100), version{revision: 2}) || !m.admit("new", version{revision: 1}) {
		t.Error("news are not admitted")
	}
	if len(m.resources) != memoryMax {
		t.Errorf("%d events are remembered, want %d", len(m.resources), memoryMax)
	}
	if m.admit(id(100), version{revision: 2}) {
		t.Error("an event that has just changed is forgotten")
	}
	if !m.admit(id(101), version{revision: 1}) {
		t.Error("the event that changed first is remembered")
	}
}

func TestSyncedEndsTheSnapshot(t *testing.T) {
	client, err := New("localhost")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	watch := client.Watch(&tidingsv1.WatchEventRequest{})
	watch.take(&tidingsv1.WatchEventResponse{Message: &tidingsv1.WatchEventResponse_Synced{Synced: &tidingsv1.Synced{}}})
	if watch.memory.snapshot {
		t.Error("the memory is unbounded after synced")
	}
	watch.take(&tidingsv1.WatchEventResponse{Message: &tidingsv1.WatchEventResponse_Reset_{Reset_: &tidingsv1.Reset{}}})
	if !watch.memory.snapshot {
		t.Error("the memory does not hold the new snapshot after reset")
	}
}

func TestBackoffBound(t *testing.T) {
	for failures, want := range []time.Duration{
		100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond,
		1600 * time.Millisecond, 3200 * time.Millisecond, 6400 * time.Millisecond, 10 * time.Second, 10 * time.Second,
	} {
		if got := backoffBound(failures); got != want {
			t.Errorf("after %d failures the bound is %v, want %v", failures, got, want)
		}
	}
	if got := backoffBound(1_000_000); got != maxBackoff {
		t.Errorf("after a million failures the bound is %v, want %v", got, maxBackoff)
	}
}

func TestDeadline(t *testing.T) {
	tests := map[string]struct {
		request any
		want    time.Duration
	}{
		"a call":         {&tidingsv1.GetEventRequest{}, 10 * time.Second},
		"a wait":         {&tidingsv1.WaitTaskStatusRequest{}, 35 * time.Second},
		"a longer wait":  {&tidingsv1.WaitTaskStatusRequest{Timeout: durationpb.New(time.Minute)}, 65 * time.Second},
		"no wait at all": {&tidingsv1.WaitTaskStatusRequest{Timeout: durationpb.New(0)}, 5 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := deadline(test.request); got != test.want {
				t.Errorf("deadline is %v, want %v", got, test.want)
			}
		})
	}
}

func TestIsLocal(t *testing.T) {
	tests := map[string]bool{
		"localhost:50051":                true,
		"localhost":                      true,
		"127.0.0.1:50051":                true,
		"127.8.8.8:50051":                true,
		"[::1]:50051":                    true,
		"dns:///localhost:50051":         true,
		"passthrough:///127.0.0.1:50051": true,
		"unix:/run/tidings.sock":         true,
		"unix-abstract:tidings":          true,
		"":                               false,
		"tidings.example:443":            false,
		"localhost.example:443":          false,
		"127.0.0.1.example:443":          false,
		"10.0.0.1:50051":                 false,
		"0.0.0.0:50051":                  false,
		"dns:///tidings.example":         false,
	}
	for target, want := range tests {
		if got := isLocal(target); got != want {
			t.Errorf("isLocal(%q) is %v, want %v", target, got, want)
		}
	}
}
